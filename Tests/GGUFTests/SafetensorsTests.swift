import GGUF
import Kernels
import Testing

@Suite struct SafetensorsTests {
    /// A file from its header's text and its data.
    private func file(_ header: String, _ data: Int = 0, length: UInt64? = nil) -> [UInt8] {
        bytes(of: length ?? UInt64(header.utf8.count)) + Array(header.utf8) + [UInt8](repeating: 1, count: data)
    }

    private func failure(_ file: [UInt8]) -> SafetensorsError? {
        do throws(SafetensorsError) {
            _ = try SafetensorsFile(parsing: file)
            return nil
        } catch {
            return error
        }
    }

    private func entry(_ name: String, _ type: String, _ shape: String, _ begin: Int, _ end: Int) -> String {
        #""\#(name)":{"dtype":"\#(type)","shape":\#(shape),"data_offsets":[\#(begin),\#(end)]}"#
    }

    @Test func aFileIsRead() throws {
        let header =
            "{\(entry("b", "F16", "[2,3]", 8, 20)),\"__metadata__\":{\"format\":\"pt\"},\(entry("a", "F32", "[2]", 0, 8)),\(entry("s", "I64", "[]", 20, 28)),\(entry("none", "F32", "[0,4]", 28, 28))}  "
        let found = try SafetensorsFile(parsing: file(header, 28))
        let start = 8 + header.utf8.count
        #expect(found.metadata == ["format": "pt"])
        #expect(found.tensors.map(\.name) == ["a", "b", "s", "none"])
        #expect(found.tensors.map(\.type) == [.f32, .f16, .i64, .f32])
        #expect(found.tensors.map(\.shape) == [[2], [2, 3], [], [0, 4]])
        #expect(found.tensors.map { $0.range.lowerBound - start } == [0, 8, 20, 28])
        #expect(found.tensors.map(\.range.count) == [8, 12, 8, 0])
        #expect(try SafetensorsFile(parsing: file("{}")).tensors.isEmpty)
    }

    @Test func everyTypeHasItsSize() throws {
        for type in SafetensorsFile.ElementType.allCases {
            let found = try SafetensorsFile(parsing: file("{\(entry("t", type.rawValue, "[8]", 0, type.bits))}", type.bits))
            #expect(found.tensors[0].type == type)
        }
    }

    @Test(arguments: [
        (#"{"a":1}"#, 0, "'a'"), (#"{"a":{"dtype":"F32","shape":[1]}}"#, 0, "data_offsets"),
        (#"{"":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#, 1, "without a name"),
        (#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4, "F33"), (#"{"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}"#, 4, "dtype"),
        (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, "shape"), (#"{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#, 4, "shape"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, "[4, 0]"), (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, 4, "[0]"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}"#, 4, "'more'"),
        (#"{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}"#, 1, "whole number of bytes"),
        (#"{"__metadata__":{"n":1}}"#, 0, "'n'"), (#"{"__metadata__":[]}"#, 0, "__metadata__"),
        (#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1, "'a' twice"),
        (#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1, "'dtype' twice"),
        ("{\"a\":}", 0, "JSON"), ("{}x", 0, "JSON"), (" {}", 0, "begin with '{'"), ("", 0, "begin with '{'"), ("{\"a\":[[[1]]]}", 0, "JSON"),
    ])
    func malformedHeadersAreRefused(header: String, data: Int, named: String) {
        let error = failure(file(header, data))
        #expect(error?.code == .malformed)
        #expect(error?.message.contains(named) == true, "\(error?.message ?? "accepted")")
    }

    @Test func lengthsAreHeldAgainstTheFile() {
        #expect(failure([1, 2, 3])?.code == .truncated)
        #expect(failure(file("{}", length: 1 << 63))?.code == .tooLarge)
        #expect(failure(file("{}", length: .max))?.code == .tooLarge)
        #expect(failure(file("{}", length: 100_000_001))?.code == .tooLarge)
        #expect(failure(file("{}", length: 3))?.code == .truncated)
        let error = failure(file("{\(entry("w", "F32", "[4]", 0, 16))}", 15))
        #expect(error?.code == .truncated && error?.message.contains("'w'") == true)
    }

    /// Shapes whose product overflows, or says another size than the offsets.
    @Test(arguments: ["[4611686018427387904,4]", "[9223372036854775807,9223372036854775807]", "[3]", "[5]", "[]"])
    func shapesMustSpanTheirOffsets(shape: String) {
        let error = failure(file("{\(entry("w", "F32", shape, 0, 16))}", 16))
        #expect(error?.code == .malformed && error?.message.contains("'w'") == true)
    }

    @Test func namesAreBounded() throws {
        let longest = String(repeating: "a", count: 510) + "é"
        #expect(try SafetensorsFile(parsing: file("{\(entry(longest, "U8", "[1]", 0, 1))}", 1)).tensors[0].name == longest)
        let error = failure(file("{\(entry(longest + ".", "U8", "[1]", 0, 1))}", 1))
        #expect(error?.code == .malformed)
        #expect(error?.message == "tensor '\(longest.prefix(80))…' has a name of 513 bytes, expected at most 512")
    }

    /// Messages show shapes and offsets, and stay short all the same.
    @Test func extentsAreBounded() throws {
        let most = "[1,1,1,1,1,1,1,4]"
        #expect(try SafetensorsFile(parsing: file("{\(entry("w", "U8", most, 0, 4))}", 4)).tensors[0].shape.count == 8)
        for count in [9, 600_000] {
            let numbers = "[" + [String](repeating: "1", count: count).joined(separator: ",") + "]"
            let shape = failure(file("{\(entry("w", "U8", numbers, 0, 1))}", 1))
            #expect(shape?.code == .malformed && shape?.message == "tensor 'w' has a shape of \(count) integers, expected at most 8")
            let offsets = failure(file(#"{"w":{"dtype":"U8","shape":[1],"data_offsets":\#(numbers)}}"#, 1))
            #expect(offsets?.code == .malformed && offsets?.message == "tensor 'w' has a data_offsets of \(count) integers, expected 2")
        }
        #expect(failure(file(#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}"#, 1))?.message.contains("[0, 1, 1]") == true)
    }

    @Test func everyByteBelongsToOneTensor() {
        let overlap = failure(file("{\(entry("a", "U8", "[4]", 0, 4)),\(entry("b", "U8", "[4]", 3, 7))}", 7))
        #expect(overlap?.message == "tensor 'b' begins at data offset 3, inside tensor 'a', which ends at 4")
        let hole = failure(file("{\(entry("a", "U8", "[4]", 0, 4)),\(entry("b", "U8", "[4]", 5, 9))}", 9))
        #expect(hole?.message == "the 1 bytes before tensor 'b' at data offset 5 belong to no tensor")
        let late = failure(file("{\(entry("a", "U8", "[4]", 2, 6))}", 6))
        #expect(late?.message == "the 2 bytes before tensor 'a' at data offset 2 belong to no tensor")
        let tail = failure(file("{\(entry("a", "U8", "[4]", 0, 4))}", 7))
        #expect(tail?.message == "3 bytes after tensor 'a' belong to no tensor, expected the end of the file")
        #expect(failure(file("{}", 1))?.code == .malformed)
    }

    /// A header may be long; what it would take in memory is bounded by the file's size.
    @Test func aHeaderOfManySmallValuesIsRefused() {
        let header = "{\"a\":{\"shape\":[" + String(repeating: "0,", count: 1_000_000) + "0]}}"
        #expect(failure(file(header))?.code == .tooLarge)
    }

    @Test func damageIsReadOrRefused() throws {
        var random = SplitMix(seed: 3)
        let whole = SafetensorsWriter.bytes(of: [
            .init(name: "a", type: .f32, shape: [2, 3], values: [1, 2, 3, 4, 5, 6]), .init(name: "b", type: .f16, shape: [3], values: [1, 2, 3]),
        ])
        for length in 0..<whole.count { #expect(failure(Array(whole[..<length])) != nil) }
        for _ in 0..<20_000 {
            var damaged = whole
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                damaged[Int.random(in: 0..<damaged.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            guard let found = try? SafetensorsFile(parsing: damaged) else { continue }
            #expect(found.tensors.allSatisfy { $0.range.lowerBound >= 8 && $0.range.upperBound <= damaged.count })
        }
    }

    @Test func whatIsWrittenIsRead() throws {
        let tensors: [SafetensorsWriter.Tensor] = [
            .init(name: "z", type: .f32, shape: [2, 2], values: [1, -2.5, 0, 3]), .init(name: "a", type: .bf16, shape: [3], values: [1, -0.5, 256]),
            .init(name: "m \"q\"", type: .f16, shape: [1, 1], values: [0.25]), .init(name: "b", type: .f32, shape: [1], values: [7]),
        ]
        let written = SafetensorsWriter.bytes(of: tensors)
        #expect(written == SafetensorsWriter.bytes(of: tensors.reversed()))
        let found = try SafetensorsFile(parsing: written)
        #expect(found.metadata == ["format": "pt"])
        #expect(found.tensors.map(\.name) == ["b", "z", "a", "m \"q\""])
        #expect(found.tensors[0].range.lowerBound % 8 == 0)
        #expect(TensorValues.decode(written, at: found.tensors[1].range, as: .f32) == [1, -2.5, 0, 3])
        #expect(TensorValues.decode(written, at: found.tensors[2].range, as: .bf16) == [1, -0.5, 256])
        #expect(TensorValues.decode(written, at: found.tensors[3].range, as: .f16) == [0.25])
    }
}

@Suite struct TensorValuesTests {
    /// All 65,536 halves, against the standard library.
    @Test func everyHalfIsExact() {
        let halves = (0...UInt16.max).map { $0 }
        let stored = halves.flatMap { bytes(of: $0) }
        let found = TensorValues.decode([0] + stored, at: 1..<1 + stored.count, as: .f16)
        for (half, value) in zip(halves, found) {
            let expected = Float(Float16(bitPattern: half))
            #expect(value.bitPattern == expected.bitPattern || (value.isNaN && expected.isNaN))
        }
        let finite = found.filter(\.isFinite)
        var back: [UInt8] = []
        TensorValues.append(finite, as: .f16, to: &back)
        #expect(back == halves.filter { Float16(bitPattern: $0).isFinite }.flatMap { bytes(of: $0) })
        #expect(TensorValues.areExact(finite, as: .f16))
        #expect(!TensorValues.areExact([1, 0.1], as: .f16) && !TensorValues.areExact([1e6], as: .f16))
    }

    @Test func bfloat16IsRoundedToNearestEven() {
        var stored: [UInt8] = []
        TensorValues.append([1, 1 + 0x1p-8, 1 + 0x1p-7 + 0x1p-8, -3, 0x1.ffp127], as: .bf16, to: &stored)
        #expect(TensorValues.decode(stored, at: 0..<10, as: .bf16) == [1, 1, 1 + 0x1p-6, -3, .infinity])
        #expect(TensorValues.areExact([1, -3, 0x1p-130], as: .bf16) && !TensorValues.areExact([1 + 0x1p-8], as: .bf16))
    }

    @Test func blocksOfQ8AreScaled() {
        let first = bytes(of: Float16(0.5).bitPattern) + (0..<32).map { UInt8(bitPattern: Int8($0 * 8 - 128)) }
        let second = bytes(of: Float16(-2).bitPattern) + [UInt8](repeating: UInt8(bitPattern: -1), count: 32)
        let found = TensorValues.decode(first + second, at: 0..<68, as: .q8_0)
        #expect(found == (0..<32).map { Float($0 * 8 - 128) / 2 } + [Float](repeating: 2, count: 32))
    }

    @Test func theLargestMagnitudeIsFound() {
        #expect(TensorValues.largestMagnitude(in: []) == 0 && TensorValues.largestMagnitude(in: [-0.0, 0]) == 0)
        for place in [0, 1, 7, 500, 998] {
            var values = (0..<999).map { Float($0 % 13) * ($0 % 2 == 0 ? 0.5 : -0.5) }
            #expect(TensorValues.largestMagnitude(in: values) == 6)
            values[place] = place % 2 == 0 ? -1e30 : 1e30
            #expect(TensorValues.largestMagnitude(in: values) == 1e30)
        }
        #expect(TensorValues.largestMagnitude(in: [.leastNonzeroMagnitude, -.leastNonzeroMagnitude]) == .leastNonzeroMagnitude)
    }

    @Test(arguments: [Float.infinity, -.infinity, .nan, -.nan, .signalingNaN]) func whatIsNotFiniteIsFound(value: Float) {
        var values = [Float](repeating: -.greatestFiniteMagnitude, count: 1000)
        values[3] = .leastNonzeroMagnitude
        #expect(TensorValues.firstNonFinite(in: values) == nil)
        values[997] = value
        #expect(TensorValues.firstNonFinite(in: values) == 997)
        #expect(TensorValues.firstNonFinite(in: []) == nil)
    }
}
