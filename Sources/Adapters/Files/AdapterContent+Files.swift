import GGUF
import Modeling

extension AdapterContent {
    /// Reads an adapter from files whose formats their first bytes tell: a GGUF-LoRA file, a tar archive of a PEFT directory, or the two files of one.
    /// Names are for messages only, since they are a client's.
    public static func read(_ files: [ExportedAdapter.File], base: ModelConfiguration) throws(AdapterError) -> (content: AdapterContent, source: AdapterSource)
    {
        var config: ExportedAdapter.File?, weights: ExportedAdapter.File?
        for file in files {
            switch FileKind(file.bytes) {
            case .gguf where files.count == 1:
                return (try GGUFAdapter.read(file.bytes, base: base), .gguf)
            case .archive where files.count == 1:
                let found = try AdapterArchive.read(file.bytes)
                return (try PEFTAdapter.read(config: found.config, weights: found.weights, base: base), .peft)
            case .gguf, .archive:
                throw AdapterError(.unreadable, "\(shown(file.name)): found a complete adapter among \(files.count) files, expected it alone")
            case .json:
                guard config == nil else { throw AdapterError(.unreadable, "\(shown(file.name)): found a second JSON file, expected one adapter_config.json") }
                config = file
            case .safetensors:
                guard weights == nil else {
                    throw AdapterError(.unreadable, "\(shown(file.name)): found a second safetensors file, expected one adapter_model.safetensors")
                }
                weights = file
            case .compressed:
                throw AdapterError(.unreadable, "\(shown(file.name)): found a compressed file, expected a plain tar archive; pack the adapter with tar -cf")
            case .pickle:
                throw AdapterError(
                    .unsupported,
                    "\(shown(file.name)): found a pickle, which can run code when it is read, expected safetensors; save the adapter with safe_serialization=True"
                )
            case .unknown:
                throw AdapterError(
                    .unreadable,
                    "\(shown(file.name)): found none of the known formats, expected GGUF, a tar archive, or adapter_config.json and adapter_model.safetensors")
            }
        }
        guard let config, let weights else {
            let missing = config == nil ? PEFTAdapter.configName : PEFTAdapter.weightsName
            throw AdapterError(
                .unreadable, "\(missing) is missing, expected \(PEFTAdapter.configName) and \(PEFTAdapter.weightsName), a GGUF file or a tar archive")
        }
        return (try PEFTAdapter.read(config: config.bytes, weights: weights.bytes, base: base), .peft)
    }
}

/// What a file is, by its first bytes.
private enum FileKind {
    case gguf, archive, json, safetensors, compressed, pickle, unknown

    init(_ bytes: [UInt8]) {
        if bytes.starts(with: "GGUF".utf8) {
            self = .gguf
        } else if AdapterArchive.isArchive(bytes) {
            self = .archive
        } else if bytes.count > 8, bytes[8] == UInt8(ascii: "{"), bytes[6] == 0, bytes[7] == 0 {
            // A header's length far below 2^48, then its JSON.
            self = .safetensors
        } else if bytes.first(where: { $0 != 0x20 && $0 != 0x0A && $0 != 0x0D && $0 != 0x09 }) == UInt8(ascii: "{") {
            self = .json
        } else if bytes.starts(with: [0x80]) {
            self = .pickle
        } else if bytes.starts(with: [0x50, 0x4B]) {
            // PyTorch's own files are zip archives of a pickle.
            self = Self.holdsPickle(bytes) ? .pickle : .compressed
        } else if bytes.starts(with: [0x1F, 0x8B]) || bytes.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) || bytes.starts(with: [0xFD, 0x37, 0x7A])
            || bytes.starts(with: [0x42, 0x5A, 0x68])
        {
            self = .compressed
        } else {
            self = .unknown
        }
    }

    private static func holdsPickle(_ bytes: [UInt8]) -> Bool {
        let start = String(decoding: bytes.prefix(256), as: UTF8.self)
        return start.contains(".pkl")
    }
}
