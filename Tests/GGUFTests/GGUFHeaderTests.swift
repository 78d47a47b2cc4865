import Kernels

import GGUF
import Testing

/// What a valid header says.
@Suite struct GGUFHeaderTests {
    @Test(arguments: [UInt32(2), 3]) func everyValueTypeIsRead(version: UInt32) throws {
        let header = try GGUFHeader(parsing: GGUFBuilder.small(version: version).file())
        let metadata = header.metadata
        #expect(header.version == Int(version))
        #expect(header.alignment == 32)
        #expect(metadata.count == 25)
        #expect(metadata.keys.first == "general.architecture")
        #expect(metadata.keys.last == "a.none")
        #expect(metadata["a.u8"] == .uint8(200))
        #expect(metadata["a.i8"] == .int8(-1))
        #expect(metadata["a.u16"] == .uint16(0x1234))
        #expect(metadata["a.i16"] == .int16(-2))
        #expect(metadata["a.u32"] == .uint32(70_000))
        #expect(metadata["a.i32"] == .int32(-3))
        #expect(metadata["a.f32"] == .float32(1.5))
        #expect(metadata["a.bool"] == .bool(true))
        #expect(metadata["a.u64"] == .uint64(.max))
        #expect(metadata["a.i64"] == .int64(-4))
        #expect(metadata["a.f64"] == .float64(2.25))
        #expect(metadata["a.strings"] == .array(.strings(["", "a", "Ġthe", "a string of more than fifteen bytes"])))
        #expect(metadata["a.u8s"] == .array(.uint8s([1, 2, 3])))
        #expect(metadata["a.i8s"] == .array(.int8s([-1, 1])))
        #expect(metadata["a.u16s"] == .array(.uint16s([0x201])))
        #expect(metadata["a.i16s"] == .array(.int16s([-1])))
        #expect(metadata["a.u32s"] == .array(.uint32s([7, .max])))
        #expect(metadata["a.i32s"] == .array(.int32s([7, -1])))
        #expect(metadata["a.f32s"] == .array(.float32s([0.5, -2])))
        #expect(metadata["a.bools"] == .array(.bools([true, false, true])))
        #expect(metadata["a.u64s"] == .array(.uint64s([.max])))
        #expect(metadata["a.i64s"] == .array(.int64s([-9])))
        #expect(metadata["a.f64s"] == .array(.float64s([0.125])))
        #expect(metadata["a.none"] == .array(.strings([])))
        #expect(metadata["absent"] == nil)
    }

    @Test func tensorsHavePlaces() throws {
        let file = GGUFBuilder.small().file()
        let header = try GGUFHeader(parsing: file)
        #expect(header.dataOffset % 32 == 0)
        #expect(file.count - header.dataOffset == 152)
        #expect(header.tensors == [
            GGUFTensor(name: "token_embd.weight", type: .q4_1, dimensions: [64, 2], offset: header.dataOffset, byteCount: 80),
            GGUFTensor(name: "output_norm.weight", type: .f32, dimensions: [4], offset: header.dataOffset + 96, byteCount: 16),
            GGUFTensor(name: "cube", type: .f16, dimensions: [2, 3, 2, 1], offset: header.dataOffset + 128, byteCount: 24),
        ])
        #expect(header.tensors.map(\.elementCount) == [128, 4, 12])
    }

    @Test func aFileMayBeEmptyOrHoldOnlyAVocabulary() throws {
        #expect(try GGUFHeader(parsing: GGUFBuilder().file()).tensors.isEmpty)
        var vocabulary = GGUFBuilder()
        vocabulary.strings("tokenizer.ggml.tokens", ["<s>", "</s>"])
        let header = try GGUFHeader(parsing: vocabulary.file())
        #expect(header.tensors.isEmpty)
        #expect(try header.metadata.strings("tokenizer.ggml.tokens") == ["<s>", "</s>"])
    }

    @Test(arguments: [UInt32(1), 8, 64, 4096]) func otherAlignmentsAreKept(alignment: UInt32) throws {
        var builder = GGUFBuilder()
        builder.alignment = Int(alignment)
        builder.pair("general.alignment", alignment)
        builder.tensor("a", dimensions: [1], offset: 0)
        builder.tensor("b", dimensions: [1], offset: UInt64(max(4, alignment)))
        builder.data = [UInt8](repeating: 0, count: Int(max(4, alignment)) + 4)
        let header = try GGUFHeader(parsing: builder.file())
        #expect(header.alignment == Int(alignment))
        #expect(header.tensors.map { $0.offset - header.dataOffset } == [0, Int(max(4, alignment))])
    }

    /// Tensors need not lie in the order of their entries, and gaps between them are no fault.
    @Test func orderAndGapsAreFree() throws {
        var builder = GGUFBuilder()
        builder.tensor("second", dimensions: [8], offset: 128)
        builder.tensor("first", dimensions: [8], offset: 0)
        builder.data = [UInt8](repeating: 0, count: 160)
        let header = try GGUFHeader(parsing: builder.file())
        #expect(header.tensors.map(\.name) == ["second", "first"])
    }

    @Test func everyTypeHasItsSize() throws {
        let sizes: [GGMLType: Int] = [
            .f32: 1024, .f16: 512, .bf16: 512, .q4_0: 144, .q4_1: 160, .q5_0: 176, .q5_1: 192, .q8_0: 272,
            .q2_K: 84, .q3_K: 110, .q4_K: 144, .q5_K: 176, .q6_K: 210,
        ]
        for type in GGMLType.allCases {
            var builder = GGUFBuilder()
            builder.tensor("t", type: type.rawValue, dimensions: [256], offset: 0)
            builder.data = [UInt8](repeating: 0, count: sizes[type] ?? 0)
            let header = try GGUFHeader(parsing: builder.file())
            #expect(header.tensors[0].byteCount == sizes[type])
            #expect(header.tensors[0].type == type)
        }
    }

    /// Parsing any prefix says either what it would take, or the same as parsing the whole; taking its word ends within a few rounds.
    @Test func aPrefixAsksForMore() throws {
        let file = GGUFBuilder.small().file()
        let whole = try GGUFHeader(parsing: file)
        for start in 0...file.count {
            var length = start
            var rounds = 0
            parsing: while true {
                let outcome = try file.withUnsafeBytes { try GGUFHeader.parse(UnsafeRawBufferPointer(rebasing: $0[..<length]), fileSize: file.count) }
                switch outcome {
                case .complete(let header):
                    #expect(header == whole)
                    break parsing
                case .needsMore(let needed):
                    #expect(needed > length && needed <= file.count)
                    length = needed
                    rounds += 1
                }
            }
            #expect(rounds <= 250)
        }
    }
}

@Suite struct GGUFMetadataTests {
    private let metadata = GGUFMetadata([
        ("name", .string("x")), ("flag", .bool(true)), ("small", .uint8(9)), ("big", .uint64(.max)), ("negative", .int32(-5)),
        ("ratio", .float32(0.5)), ("precise", .float64(0.1)), ("names", .array(.strings(["a", "b"]))), ("scores", .array(.float32s([1, 2]))),
        ("doubles", .array(.float64s([0.5]))), ("types", .array(.int32s([1, -1]))), ("bigs", .array(.uint64s([1, .max]))), ("flags", .array(.bools([false]))),
    ])

    @Test func gettersGiveWhatIsThere() throws {
        #expect(try metadata.string("name") == "x")
        #expect(try metadata.bool("flag") == true)
        #expect(try metadata.integer("small") == 9)
        #expect(try metadata.integer("negative") == -5)
        #expect(try metadata.number("ratio") == 0.5)
        #expect(try metadata.number("precise") == 0.1)
        #expect(try metadata.number("negative") == -5)
        #expect(try metadata.number("big") == 0x1p64)
        #expect(try metadata.strings("names") == ["a", "b"])
        #expect(try metadata.floats("scores") == [1, 2])
        #expect(try metadata.floats("doubles") == [0.5])
        #expect(try metadata.integers("types") == [1, -1])
        #expect(try metadata.bools("flags") == [false])
    }

    @Test func anAbsentKeyIsNil() throws {
        #expect(try metadata.string("-") == nil)
        #expect(try metadata.bool("-") == nil)
        #expect(try metadata.integer("-") == nil)
        #expect(try metadata.number("-") == nil)
        #expect(try metadata.strings("-") == nil)
        #expect(try metadata.floats("-") == nil)
        #expect(try metadata.integers("-") == nil)
        #expect(try metadata.bools("-") == nil)
    }

    @Test func anotherTypeThrowsAndSaysSo() {
        #expect(throws: GGUFError(code: .wrongType, message: "metadata key 'small' is u8, expected a string")) { try metadata.string("small") }
        #expect(throws: GGUFError(code: .wrongType, message: "metadata key 'name' is str, expected an integer below 2^63")) { try metadata.integer("name") }
        #expect(throws: GGUFError(code: .wrongType, message: "metadata key 'big' is u64 18446744073709551615, expected an integer below 2^63")) {
            try metadata.integer("big")
        }
        #expect(throws: GGUFError.self) { try metadata.number("flag") }
        #expect(throws: GGUFError.self) { try metadata.bool("small") }
        #expect(throws: GGUFError.self) { try metadata.strings("scores") }
        #expect(throws: GGUFError.self) { try metadata.floats("types") }
        #expect(throws: GGUFError.self) { try metadata.integers("scores") }
        #expect(throws: GGUFError.self) { try metadata.integers("bigs") }
        #expect(throws: GGUFError.self) { try metadata.bools("names") }
    }

    @Test func aKeyGivenTwiceInMemoryKeepsTheLastValue() {
        let metadata = GGUFMetadata([("k", .uint8(1)), ("l", .uint8(2)), ("k", .uint8(3))])
        #expect(metadata.keys == ["k", "l"])
        #expect(metadata["k"] == .uint8(3))
    }
}
