import GGUF
import Testing

/// One thing wrong at a time: each is refused with the right code, and the message names the thing.
@Suite struct BadFileTests {
    struct BadFile: Sendable, CustomTestStringConvertible {
        var what: String
        var code: GGUFError.Code
        /// A part of the message.
        var says: String
        var file: [UInt8]
        var testDescription: String { what }

        init(_ what: String, _ code: GGUFError.Code, says: String, _ make: (inout GGUFBuilder) -> Void) {
            var builder = GGUFBuilder()
            make(&builder)
            self.init(what, code, says: says, file: builder.file())
        }

        init(_ what: String, _ code: GGUFError.Code, says: String, file: [UInt8]) {
            self.what = what
            self.code = code
            self.says = says
            self.file = file
        }
    }

    static let header: [BadFile] = [
        BadFile("an empty file", .notGGUF, says: "begins with the bytes []", file: []),
        BadFile("three bytes", .notGGUF, says: "[47 47 55]", file: Array("GGU".utf8)),
        BadFile("another magic", .notGGUF, says: "[47 47 4d 4c]") { $0.magic = Array("GGML".utf8) },
        BadFile("version 0", .unsupportedVersion, says: "version 0, expected 2 or 3") { $0.version = 0 },
        BadFile("version 1", .unsupportedVersion, says: "version 1, expected 2 or 3") { $0.version = 1 },
        BadFile("version 4", .unsupportedVersion, says: "version 4, expected 2 or 3") { $0.version = 4 },
        BadFile("big endian", .unsupportedVersion, says: "big-endian GGUF version 3") { $0.version = UInt32(3).byteSwapped },
        BadFile("too many tensors", .malformed, says: "announces 18446744073709551615 tensors") { $0.tensorCount = .max },
        BadFile("one tensor more than there is room for", .malformed, says: "announces 1 tensors, but the file's 24 bytes hold at most 0") { $0.tensorCount = 1 },
        BadFile("too many pairs", .malformed, says: "announces 9223372036854775808 metadata pairs") { $0.pairCount = 1 << 63 },
        BadFile("a pair fewer than announced", .truncated, says: "the key of metadata pair 2 of 2") {
            $0.pairCount = 2
            $0.pair("general.name", "a name that is long enough")
        },
    ]

    static let metadata: [BadFile] = [
        BadFile("a key longer than the file", .truncated, says: "18446744073709551615 bytes expected") { $0.rawPair(bytes(of: UInt64.max) + [UInt8](repeating: 0, count: 20)) },
        BadFile("a key longer than 65535", .malformed, says: "65536 bytes, expected at most 65535") { $0.pair(String(repeating: "k", count: 65_536), 1) },
        BadFile("an empty key", .malformed, says: "the key of metadata pair 1 of 1 is empty") { $0.pair("", "value of it") },
        BadFile("a key that is not UTF-8", .malformed, says: "not valid UTF-8") { $0.rawPair(bytes(of: UInt64(2)) + [0xC3, 0x28] + bytes(of: UInt32(4)) + bytes(of: UInt32(1))) },
        BadFile("value type 13", .malformed, says: "metadata key 'k' has value type 13") { $0.pair("k", type: 13, [0, 0, 0, 0]) },
        BadFile("value type 2^32-1", .malformed, says: "value type 4294967295") { $0.pair("k", type: .max, [0, 0, 0, 0]) },
        BadFile("a key twice", .malformed, says: "'twice' occurs twice") {
            $0.pair("twice", 1)
            $0.pair("twice", 2)
        },
        BadFile("a string longer than the file", .truncated, says: "9223372036854775807 bytes expected") { $0.pair("k", type: 8, bytes(of: UInt64(Int64.max))) },
        BadFile("a string that is not UTF-8", .malformed, says: "not valid UTF-8") { $0.pair("k", type: 8, bytes(of: UInt64(1)) + [0xFF]) },
        BadFile("a bool of 2", .malformed, says: "bool with the value 2") { $0.pair("k", type: 7, [2]) },
        BadFile("a bool of 7 in an array", .malformed, says: "element 1 is a bool with the value 7") { $0.array("k", elementType: 7, count: 3, [1, 7, 0]) },
        BadFile("an array of arrays", .malformed, says: "an array of arrays") { $0.array("k", elementType: 9, count: 1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) },
        BadFile("an array of type 13", .malformed, says: "an array of value type 13") { $0.array("k", elementType: 13, count: 1, [0]) },
        BadFile("an array of 2^64-1 bytes", .truncated, says: "announces 18446744073709551615 elements") { $0.array("k", elementType: 0, count: .max, [1]) },
        // 2^61 + 1 elements of eight bytes are eight bytes when the product wraps around.
        BadFile("an array whose size wraps around", .truncated, says: "announces 2305843009213693953 elements") {
            $0.array("k", elementType: 10, count: 1 << 61 + 1, bytes(of: UInt64(1)))
        },
        BadFile("an array of 2^60 strings", .truncated, says: "announces 1152921504606846976 elements") { $0.array("k", elementType: 8, count: 1 << 60, bytes(of: "a")) },
        BadFile("an array's last string longer than the file", .truncated, says: "inside element 1 of metadata key 'k'") {
            $0.array("k", elementType: 8, count: 2, bytes(of: "a") + bytes(of: UInt64(1 << 40)) + [UInt8](repeating: 0, count: 8))
        },
        BadFile("an array with a string that is not UTF-8", .malformed, says: "element 1 of metadata key 'k' is not valid UTF-8") {
            $0.array("k", elementType: 8, count: 2, bytes(of: "a") + bytes(of: UInt64(2)) + [0xED, 0xA0])
        },
        // Three bytes that are as long as the character which would replace them.
        BadFile("a character cut short", .malformed, says: "element 0 of metadata key 'k' is not valid UTF-8 (3 bytes") {
            $0.array("k", elementType: 8, count: 1, bytes(of: UInt64(3)) + [0xF0, 0x9F, 0x98])
        },
        BadFile("alignment 0", .malformed, says: "'general.alignment' is 0, expected a power of two") { $0.pair("general.alignment", 0) },
        BadFile("alignment 24", .malformed, says: "'general.alignment' is 24, expected a power of two") { $0.pair("general.alignment", 24) },
        BadFile("an alignment that is a string", .malformed, says: "'general.alignment' is str, expected u32") { $0.pair("general.alignment", "32") },
    ]

    static let tensors: [BadFile] = [
        BadFile("a tensor name of 65 bytes", .malformed, says: "65 bytes, expected at most 64") { $0.tensor(String(repeating: "n", count: 65), dimensions: [1], offset: 0) },
        BadFile("an empty tensor name", .malformed, says: "the name of tensor 1 of 1 is empty") {
            $0.tensor("", dimensions: [1, 1], offset: 0)
            $0.data = [0, 0, 0, 0]
        },
        BadFile("a tensor name twice", .malformed, says: "tensor 'a' occurs twice") {
            $0.tensor("a", dimensions: [1], offset: 0)
            $0.tensor("a", dimensions: [1], offset: 32)
            $0.data = [UInt8](repeating: 0, count: 64)
        },
        BadFile("no dimensions", .malformed, says: "0 dimensions, expected 1…4") {
            $0.tensor("a", dimensions: [], offset: 0)
            $0.data = [UInt8](repeating: 0, count: 64)
        },
        BadFile("five dimensions", .malformed, says: "5 dimensions, expected 1…4") { $0.tensor("a", dimensions: [1, 1, 1, 1, 1], offset: 0) },
        BadFile("2^32-1 dimensions", .malformed, says: "4294967295 dimensions") { $0.tensor("a", dimensions: [1], dimensionCount: .max, offset: 0) },
        BadFile("an extent of zero", .malformed, says: "0 elements along dimension 1") { $0.tensor("a", dimensions: [4, 0], offset: 0) },
        BadFile("an extent below zero", .malformed, says: "18446744073709551615 elements along dimension 0") { $0.tensor("a", dimensions: [.max], offset: 0) },
        BadFile("extents whose product wraps around", .malformed, says: "more than 2^63 elements") {
            $0.tensor("a", dimensions: [1 << 32, 1 << 32, 4, 1], offset: 0)
        },
        BadFile("a byte count that wraps around", .malformed, says: "more than 2^63 bytes") { $0.tensor("a", dimensions: [1 << 62], offset: 0) },
        BadFile("an unknown type", .unsupportedTensorType, says: "type 999, expected one of F32, F16") { $0.tensor("a", type: 999, dimensions: [32], offset: 0) },
        BadFile("a type that was removed from ggml", .unsupportedTensorType, says: "type 4, expected") { $0.tensor("a", type: 4, dimensions: [32], offset: 0) },
        BadFile("a type that is not read", .unsupportedTensorType, says: "type 20 (IQ4_NL)") { $0.tensor("a", type: 20, dimensions: [32], offset: 0) },
        BadFile("rows that are no whole blocks", .malformed, says: "rows of 48 elements, expected a multiple of 32 for type Q4_0") {
            $0.tensor("a", type: 2, dimensions: [48, 2], offset: 0)
            $0.data = [UInt8](repeating: 0, count: 54)
        },
        BadFile("rows that are no whole superblocks", .malformed, says: "multiple of 256 for type Q6_K") { $0.tensor("a", type: 14, dimensions: [128, 2], offset: 0) },
        BadFile("an offset off the alignment", .malformed, says: "data offset 4, expected a multiple of the alignment 32") {
            $0.tensor("a", dimensions: [1], offset: 4)
            $0.data = [UInt8](repeating: 0, count: 64)
        },
        BadFile("an offset past the end", .truncated, says: "tensor 'a' takes 4 bytes from offset 64 + 64, but the file has 68 bytes") {
            $0.tensor("a", dimensions: [1], offset: 64)
            $0.data = [0, 0, 0, 0]
        },
        BadFile("an offset that wraps around", .truncated, says: "18446744073709551584") {
            $0.tensor("a", dimensions: [1], offset: .max - 31)
            $0.data = [0, 0, 0, 0]
        },
        BadFile("a tensor one byte too long", .truncated, says: "takes 20 bytes") {
            $0.tensor("a", dimensions: [5], offset: 0)
            $0.data = [UInt8](repeating: 0, count: 19)
        },
        BadFile("no data at all", .truncated, says: "tensor 'a' takes 4 bytes") { $0.tensor("a", dimensions: [1], offset: 0) },
        BadFile("two tensors at one place", .malformed, says: "inside tensor 'a'") {
            $0.tensor("a", dimensions: [8], offset: 0)
            $0.tensor("b", dimensions: [8], offset: 0)
            $0.data = [UInt8](repeating: 0, count: 64)
        },
        BadFile("a tensor that reaches into another", .malformed, says: "tensor 'a' begins at offset") {
            $0.tensor("a", dimensions: [8], offset: 32)
            $0.tensor("b", dimensions: [9], offset: 0)
            $0.data = [UInt8](repeating: 0, count: 64)
        },
        BadFile("an alignment beyond the file", .truncated, says: "tensor 'a'") {
            $0.pair("general.alignment", 1 << 31)
            $0.tensor("a", dimensions: [1], offset: 0)
            $0.data = [0, 0, 0, 0]
        },
        BadFile("a control character in a name", .truncated, says: #"tensor 'a\u{1B}[31m\n'"#) { $0.tensor("a\u{1B}[31m\n", dimensions: [1], offset: 0) },
    ]

    @Test(arguments: header + metadata + tensors) func isRefused(bad: BadFile) {
        do {
            _ = try GGUFHeader(parsing: bad.file)
            Issue.record("\(bad.what) was accepted")
        } catch {
            #expect(error.code == bad.code, "\(bad.what): \(error)")
            #expect(error.message.contains(bad.says), "\(bad.what): \(error)")
            #expect(error.message.utf8.count < 500 && !error.message.contains("\n"))
        }
    }

    /// A header that would take far more memory than its file is refused before the memory is taken: 8 bytes in the file become 16 for each empty string.
    @Test func memoryIsBounded() {
        let count = (GGUFHeader.memoryAllowance / 16) + 1
        var builder = GGUFBuilder()
        builder.array("k", elementType: 8, count: UInt64(count), [UInt8](repeating: 0, count: 8 * count))
        let file = builder.file()
        #expect { try GGUFHeader(parsing: file) } throws: { ($0 as? GGUFError)?.code == .tooLarge }
    }

    /// A sparse file can have any size: what it announces is refused, and nothing is allocated for it.
    @Test(arguments: [(1 << 40, GGUFError.Code.truncated), (1 << 56, .tooLarge), (Int.max, .tooLarge)])
    func anEnormousFileIsHarmless(fileSize: Int, code: GGUFError.Code) {
        var builder = GGUFBuilder()
        builder.array("k", elementType: 8, count: 1 << 52, [])
        let file = builder.file()
        #expect { try file.withUnsafeBytes { try GGUFHeader.parse($0, fileSize: fileSize) } } throws: { ($0 as? GGUFError)?.code == code }
    }
}
