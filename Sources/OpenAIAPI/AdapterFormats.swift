import Adapters
import Modeling

/// How the bytes of adapter files become content, and files an archive.
package struct AdapterFormats: Sendable {
    package var readPEFT: @Sendable (_ config: [UInt8], _ weights: [UInt8], _ base: ModelConfiguration) throws(AdapterError) -> AdapterContent
    package var readGGUF: @Sendable (_ bytes: [UInt8], _ base: ModelConfiguration) throws(AdapterError) -> AdapterContent
    /// The two files of a PEFT directory that came as a ustar archive.
    package var readArchive: @Sendable (_ bytes: [UInt8]) throws(AdapterError) -> (config: [UInt8], weights: [UInt8])
    package var writeArchive: @Sendable (_ files: [ExportedAdapter.File]) -> [UInt8]

    package init(
        readPEFT: @escaping @Sendable ([UInt8], [UInt8], ModelConfiguration) throws(AdapterError) -> AdapterContent,
        readGGUF: @escaping @Sendable ([UInt8], ModelConfiguration) throws(AdapterError) -> AdapterContent,
        readArchive: @escaping @Sendable ([UInt8]) throws(AdapterError) -> (config: [UInt8], weights: [UInt8]),
        writeArchive: @escaping @Sendable ([ExportedAdapter.File]) -> [UInt8]
    ) {
        self.readPEFT = readPEFT
        self.readGGUF = readGGUF
        self.readArchive = readArchive
        self.writeArchive = writeArchive
    }

    /// The real ones.
    package static let standard = AdapterFormats(
        readPEFT: { config, weights, base throws(AdapterError) in try PEFTAdapter.read(config: config, weights: weights, base: base) },
        readGGUF: { bytes, base throws(AdapterError) in try GGUFAdapter.read(bytes, base: base) },
        readArchive: { bytes throws(AdapterError) in try AdapterArchive.read(bytes) },
        writeArchive: { AdapterArchive.write($0) })
}

/// An adapter as files in memory, in one of the ways in which it can come.
enum AdapterFiles: Sendable {
    case peft(config: [UInt8], weights: [UInt8])
    case gguf([UInt8])
    case archive([UInt8])

    var source: AdapterSource {
        if case .gguf = self { .gguf } else { .peft }
    }

    func content(_ formats: AdapterFormats, base: ModelConfiguration) throws(AdapterError) -> AdapterContent {
        switch self {
        case .peft(let config, let weights): return try formats.readPEFT(config, weights, base)
        case .gguf(let bytes): return try formats.readGGUF(bytes, base)
        case .archive(let bytes):
            let files = try formats.readArchive(bytes)
            return try formats.readPEFT(files.config, files.weights, base)
        }
    }
}
