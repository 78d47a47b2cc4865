import GGUF

/// A PEFT directory as a tar archive (POSIX ustar, without compression).
///
/// Read with distrust: nothing is ever unpacked to a path that the archive names, and entries that are neither regular files nor directories are refused.
public enum AdapterArchive {
    /// Files and directories of one archive.
    static let mostEntries = 16
    private static let block = 512

    /// The two files of the PEFT directory, which lie at the top or in one folder. Other regular files are ignored.
    public static func read(_ bytes: [UInt8]) throws(AdapterError) -> (config: [UInt8], weights: [UInt8]) {
        try refuseOtherFormats(bytes)
        let entries = try entries(of: bytes)
        let config = try only(PEFTAdapter.configName, entries), weights = try only(PEFTAdapter.weightsName, entries)
        guard let weights else {
            if entries.contains(where: { $0.fileName == "adapter_model.bin" }) {
                throw AdapterError(
                    .unsupported,
                    "archive: adapter_model.bin is a pickle, which can run code when it is read, expected adapter_model.safetensors; save the adapter with safe_serialization=True"
                )
            }
            throw AdapterError(.unreadable, "archive: has no \(PEFTAdapter.weightsName), expected it at the top or in one folder")
        }
        guard let config else { throw AdapterError(.unreadable, "archive: has no \(PEFTAdapter.configName), expected it beside \(PEFTAdapter.weightsName)") }
        guard config.folder == weights.folder else {
            throw AdapterError(.unreadable, "archive: \(shown(config.name)) and \(shown(weights.name)) lie in two folders, expected one")
        }
        return (Array(bytes[config.range]), Array(bytes[weights.range]))
    }

    /// An archive of files, the same for the same files: mode 0644, no owner, no time.
    ///
    /// - Parameter files: with names of 1…100 bytes.
    public static func write(_ files: [ExportedAdapter.File]) -> [UInt8] {
        var archive: [UInt8] = []
        archive.reserveCapacity(files.reduce(2 * block) { $0 + $1.bytes.count + 2 * block })
        for file in files {
            precondition((1...100).contains(file.name.utf8.count), "file name '\(file.name)' of \(file.name.utf8.count) bytes")
            var header = [UInt8](repeating: 0, count: block)
            func put(_ text: String, at offset: Int) { header.replaceSubrange(offset..<offset + text.utf8.count, with: text.utf8) }
            put(file.name, at: Field.name.lowerBound)
            put("0000644\0", at: 100)
            put("0000000\0", at: 108)
            put("0000000\0", at: 116)
            put(octal(file.bytes.count, digits: 11), at: Field.size.lowerBound)
            put("00000000000", at: 136)
            header[Field.kind] = UInt8(ascii: "0")
            put("ustar\u{0}00", at: Field.magic.lowerBound)
            put(octal(checksum(header[...]), digits: 6) + "\0 ", at: Field.checksum.lowerBound)
            archive += header
            archive += file.bytes
            archive.append(contentsOf: repeatElement(0, count: padding(file.bytes.count)))
        }
        archive.append(contentsOf: repeatElement(0, count: 2 * block))
        return archive
    }

    /// Whether the bytes begin as a tar archive does.
    static func isArchive(_ bytes: [UInt8]) -> Bool {
        bytes.count >= block && bytes[257..<262].elementsEqual("ustar".utf8)
    }

    // MARK: - Entries

    /// Places in a header.
    private enum Field {
        static let name = 0..<100, size = 124..<136, checksum = 148..<156, magic = 257..<265, prefix = 345..<500
        static let kind = 156
    }

    /// A regular file.
    private struct Entry {
        /// Without `./` at its beginning.
        var name: String
        var range: Range<Int>

        var folder: Substring? { name.lastIndex(of: "/").map { name[..<$0] } }
        var fileName: Substring { name.lastIndex(of: "/").map { name[name.index(after: $0)...] } ?? name[...] }
    }

    private static func only(_ fileName: String, _ entries: [Entry]) throws(AdapterError) -> Entry? {
        let found = entries.filter { $0.fileName == fileName && !($0.folder?.contains("/") ?? false) }
        guard found.count < 2 else {
            throw AdapterError(.unreadable, "archive: has \(shown(found[0].name)) and \(shown(found[1].name)), expected one \(fileName)")
        }
        return found.first
    }

    private static func refuseOtherFormats(_ bytes: [UInt8]) throws(AdapterError) {
        let compressed: [(String, [UInt8])] = [
            ("gzip", [0x1F, 0x8B]), ("zip", [0x50, 0x4B]), ("zstd", [0x28, 0xB5, 0x2F, 0xFD]), ("xz", [0xFD, 0x37, 0x7A]), ("bzip2", [0x42, 0x5A, 0x68]),
        ]
        for (name, magic) in compressed where bytes.starts(with: magic) {
            throw AdapterError(.unreadable, "archive: found \(name), expected a plain tar archive; pack the adapter with tar -cf")
        }
    }

    private static func entries(of bytes: [UInt8]) throws(AdapterError) -> [Entry] {
        var entries: [Entry] = []
        var offset = 0, count = 0, extensions = 0
        while true {
            guard bytes.count - offset >= block else {
                throw AdapterError(
                    .unreadable,
                    "archive: ends at byte \(bytes.count) without an end mark, expected a header of \(block) bytes at \(offset); it is cut short or no tar archive"
                )
            }
            let header = bytes[offset..<offset + block]
            if header.allSatisfy({ $0 == 0 }) { break }
            try checkHeader(header, at: offset)
            let name = try name(of: header, at: offset)
            let size = try number(Array(header)[Field.size], "size of \(shown(name))")
            let start = offset + block
            guard size <= bytes.count - start else {
                throw AdapterError(.unreadable, "archive: \(shown(name)) takes \(size) bytes, but \(bytes.count - start) follow; the archive is cut short")
            }
            let range = start..<start + size
            switch header[offset + Field.kind] {
            case UInt8(ascii: "0") where !name.hasSuffix("/"), 0 where !name.hasSuffix("/"):
                count += 1
                entries.append(Entry(name: try safe(name), range: range))
            case UInt8(ascii: "5"), UInt8(ascii: "0"), 0:
                count += 1
                guard size == 0 else { throw AdapterError(.unreadable, "archive: directory \(shown(name)) has \(size) bytes of content, expected none") }
                _ = try safe(name)
            case UInt8(ascii: "x"), UInt8(ascii: "g"):
                extensions += 1
                try checkExtension(bytes[range])
            case let kind:
                throw AdapterError(.unsupported, "archive: \(shown(name)) is \(described(kind)), expected regular files and directories alone")
            }
            guard count <= mostEntries, extensions <= 2 * mostEntries else {
                throw AdapterError(.unreadable, "archive: has more than \(mostEntries) entries, expected a PEFT directory and nothing else")
            }
            // Within the array's bounds plus a block.
            offset = start + size + padding(size)
            guard offset <= bytes.count else {
                throw AdapterError(.unreadable, "archive: ends inside the padding of \(shown(name)); it is cut short")
            }
        }
        guard bytes[offset...].allSatisfy({ $0 == 0 }) else {
            throw AdapterError(.unreadable, "archive: has content behind its end mark at byte \(offset), expected zeros")
        }
        return entries
    }

    private static func checkHeader(_ header: ArraySlice<UInt8>, at offset: Int) throws(AdapterError) {
        let header = Array(header)
        // POSIX's magic, and GNU tar's older one.
        guard header[Field.magic].elementsEqual("ustar\u{0}00".utf8) || header[Field.magic].elementsEqual("ustar  \u{0}".utf8) else {
            throw AdapterError(.unreadable, "archive: the header at byte \(offset) is not of the format ustar; pack the adapter with tar -cf")
        }
        let found = try number(header[Field.checksum], "checksum of the header at byte \(offset)")
        guard found == checksum(header[...]) else {
            throw AdapterError(
                .unreadable, "archive: the header at byte \(offset) has the checksum \(found), expected \(checksum(header[...])); the archive is damaged")
        }
    }

    private static func name(of header: ArraySlice<UInt8>, at offset: Int) throws(AdapterError) -> String {
        let header = Array(header)
        var bytes = try text(header[Field.name], offset)
        // GNU's format has times where POSIX has the name's beginning.
        if header[Field.magic.lowerBound + 5] == 0 {
            let prefix = try text(header[Field.prefix], offset)
            if !prefix.isEmpty { bytes = prefix + [UInt8(ascii: "/")] + bytes }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// What stands before the first NUL; after it there may be nothing else.
    private static func text(_ field: ArraySlice<UInt8>, _ offset: Int) throws(AdapterError) -> [UInt8] {
        let text = field.prefix { $0 != 0 }
        guard field[text.endIndex...].allSatisfy({ $0 == 0 }) else {
            throw AdapterError(.unreadable, "archive: the header at byte \(offset) has a name with a NUL inside")
        }
        return Array(text)
    }

    /// The name without `./`, if it stays inside the archive.
    private static func safe(_ name: String) throws(AdapterError) -> String {
        var words = name.split(separator: "/", omittingEmptySubsequences: false)
        while words.first == "." { words.removeFirst() }
        if words.last == "" { words.removeLast() }
        let isUnsafe =
            name.isEmpty || name.hasPrefix("/") || words.contains { $0 == ".." || $0 == "." || $0.isEmpty }
            || name.unicodeScalars.contains { $0.value < 32 || $0.value == 127 || $0 == "\u{FFFD}" || $0 == "\\" }
        guard !isUnsafe else {
            throw AdapterError(.unreadable, "archive: found the name \(shown(name)), expected a plain relative path without '..'")
        }
        return words.joined(separator: "/")
    }

    /// pax records (`<length> <key>=<value>\n`) that would change a file's name or size are refused, since this reader goes by the header alone.
    private static func checkExtension(_ content: ArraySlice<UInt8>) throws(AdapterError) {
        var rest = content
        while !rest.isEmpty {
            let digits = rest.prefix { $0 != UInt8(ascii: " ") }
            guard digits.count < 10, let length = Int(String(decoding: digits, as: UTF8.self)), length > digits.count + 1, length <= rest.count else {
                throw AdapterError(.unreadable, "archive: has a malformed extended header")
            }
            let record = rest.prefix(length)
            let key = String(decoding: record.dropFirst(digits.count + 1).prefix { $0 != UInt8(ascii: "=") }, as: UTF8.self)
            guard !["path", "linkpath", "size"].contains(key), !key.hasPrefix("GNU.sparse") else {
                throw AdapterError(
                    .unsupported,
                    "archive: has an extended header with \(shown(key)), expected names of at most 100 characters and plain files; pack the adapter with tar --format=ustar -cf"
                )
            }
            rest = rest.dropFirst(length)
        }
    }

    private static func described(_ kind: UInt8) -> String {
        switch kind {
        case UInt8(ascii: "1"), UInt8(ascii: "2"): "a link"
        case UInt8(ascii: "3"), UInt8(ascii: "4"), UInt8(ascii: "6"): "a device or pipe"
        case UInt8(ascii: "L"), UInt8(ascii: "K"): "an entry with a long name"
        default: "an entry of type \(kind)"
        }
    }

    // MARK: - Numbers

    /// Octal digits, maybe after spaces and before spaces or NULs.
    private static func number(_ field: ArraySlice<UInt8>, _ what: String) throws(AdapterError) -> Int {
        let digits = field.drop { $0 == UInt8(ascii: " ") }.prefix { $0 != UInt8(ascii: " ") && $0 != 0 }
        // Twelve octal digits are 36 bits.
        guard !digits.isEmpty, digits.count <= 12, let number = Int(String(decoding: digits, as: UTF8.self), radix: 8), number >= 0,
            digits.first != UInt8(ascii: "+"), digits.first != UInt8(ascii: "-")
        else {
            throw AdapterError(.unreadable, "archive: the \(what) is malformed, expected octal digits")
        }
        return number
    }

    private static func octal(_ number: Int, digits: Int) -> String {
        let text = String(number, radix: 8)
        precondition(text.utf8.count <= digits, "\(number) in \(digits) octal digits")
        return String(repeating: "0", count: digits - text.utf8.count) + text
    }

    /// The sum of a header's bytes, its own checksum taken for spaces.
    private static func checksum(_ header: ArraySlice<UInt8>) -> Int {
        var sum = 8 * Int(UInt8(ascii: " "))
        for (index, byte) in header.enumerated() where !Field.checksum.contains(index) { sum += Int(byte) }
        return sum
    }

    private static func padding(_ size: Int) -> Int { (block - size % block) % block }
}
