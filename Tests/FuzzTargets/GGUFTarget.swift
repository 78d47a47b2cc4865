import Adapters
import GGUF
import Modeling
import TestSupport
import Tokenization

/// The model that adapters are read for.
let adapterBase = required("the tiny Llama") {
    try ModelConfiguration(metadata: GGUFFile(path: goldenFolder.appending(path: "tiny/llama.gguf").path).metadata)
}

/// Promises: what parses has all of its tensors inside the file, none over another; a beginning of the file is never refused for being too short
/// and never read as something else; what the writer makes of the metadata reads back to the same bytes; a vocabulary that is accepted works.
func fuzzGGUF(_ input: [UInt8]) throws(FuzzFinding) {
    let header: GGUFHeader?
    let refusal: GGUFError?
    do throws(GGUFError) {
        header = try GGUFHeader(parsing: input)
        refusal = nil
    } catch {
        header = nil
        refusal = error
        try promise(!error.message.isEmpty && error.message.utf8.count < 1000 && !error.message.contains("\n"), "the message \(error.message)")
    }
    try checkBeginnings(of: input, header: header, refusal: refusal)
    if let header {
        try checkTensors(of: header, fileSize: input.count)
        try checkWriting(of: header.metadata)
        try checkVocabulary(of: header.metadata)
        _ = try? ModelConfiguration(metadata: header.metadata)
    }
    _ = try? AdapterContent.read([ExportedAdapter.File(name: "upload", bytes: input)], base: adapterBase)
}

private func checkTensors(of header: GGUFHeader, fileSize: Int) throws(FuzzFinding) {
    var end = header.dataOffset
    var names: Set<String> = []
    for tensor in header.tensors.sorted(by: { $0.offset < $1.offset }) {
        try promise(tensor.offset >= end, "tensor \(tensor.name) at \(tensor.offset) begins before \(end)")
        try promise(tensor.offset % header.alignment == 0, "tensor \(tensor.name) at \(tensor.offset) is off the alignment")
        try promise(tensor.byteCount > 0 && tensor.byteCount <= fileSize - tensor.offset, "tensor \(tensor.name) ends behind the file")
        try promise(tensor.byteCount == tensor.elementCount / tensor.type.blockSize * tensor.type.blockBytes, "tensor \(tensor.name) has another size")
        try promise(names.insert(tensor.name).inserted, "two tensors \(tensor.name)")
        end = tensor.offset + tensor.byteCount
    }
}

/// A file is read in growing prefixes: each must ask for more, or come to the verdict of the whole.
private func checkBeginnings(of input: [UInt8], header: GGUFHeader?, refusal: GGUFError?) throws(FuzzFinding) {
    var length = 0
    while length < input.count {
        let parsed = withExactCopy(of: input[..<length]) { bytes in
            Result { () throws(GGUFError) in try GGUFHeader.parse(bytes, fileSize: input.count) }
        }
        switch parsed {
        case .success(.complete(let early)):
            try promise(header.map { $0.dataOffset == early.dataOffset && $0.tensors == early.tensors } ?? false, "the first \(length) bytes are read alone")
            return
        case .success(.needsMore(let needed)):
            try promise(needed > length && needed <= input.count, "of \(input.count) bytes, \(length) ask for \(needed)")
            // Of a long file every prefix that is asked for would be thousands.
            length = input.count <= 512 ? needed : max(needed, min(input.count, length * 2))
        case .failure(let early):
            try promise(refusal?.code == early.code, "the first \(length) bytes: \(early), the whole: \(refusal?.message ?? "accepted")")
            return
        }
    }
}

private func checkWriting(of metadata: GGUFMetadata) throws(FuzzFinding) {
    func write(_ metadata: GGUFMetadata) -> [UInt8] {
        var writer = GGUFWriter()
        for key in metadata.keys where key != "general.alignment" {
            if let value = metadata[key] { writer.set(key, to: value) }
        }
        return writer.bytes()
    }
    let written = write(metadata)
    let again: GGUFMetadata
    do throws(GGUFError) {
        again = try GGUFHeader(parsing: written).metadata
    } catch {
        throw FuzzFinding("what is written is refused: \(error)")
    }
    // Bytes are compared, since a NaN is not equal to itself.
    let isSame = again.keys == metadata.keys.filter { $0 != "general.alignment" } && write(again) == written
    try promise(isSame, "the metadata reads back as something else")
}

private func checkVocabulary(of metadata: GGUFMetadata) throws(FuzzFinding) {
    guard let tokenizer = try? Tokenizer(metadata: metadata) else { return }
    for id in tokenizer.encode("Hello <|im_end|>\n1 é", addSpecial: true, parseSpecial: true) {
        try promise(id >= 0 && Int(id) < tokenizer.vocabularySize, "token \(id) of a vocabulary of \(tokenizer.vocabularySize)")
    }
    _ = tokenizer.decode(-1...Int32(min(tokenizer.vocabularySize, 2000)), skipSpecial: false)
    if let source = try? metadata.string("tokenizer.chat_template") { _ = try? ChatTemplate(source: source) }
}
