import GGUF
import JSON
import Kernels
import ModelStore
import Modeling
import Tokenization

/// What `graft inspect` says of a file. It is gathered from the header alone and with nothing taken for granted: a key that is absent or of
/// another type than usual is left out, because the file may be of an architecture that Graft has never seen.
package struct ModelReport {
    /// One tensor type and what of it there is.
    package struct TypeShare: Equatable {
        package let type: GGMLType
        package var tensors = 0
        package var elements = 0
        package var bytes = 0
    }

    package let path: String
    package let fileSize: Int
    package let version: Int
    package let name: String?
    package let architecture: String?
    package let license: String?
    /// Why this model cannot be run, in the words of `graft serve`; nil if its configuration is understood.
    package let obstacle: String?
    package let parameters: Int
    /// The architecture's numbers by the last part of their key, in this order: `context_length`, `block_count`, …
    package let shape: [(key: String, label: String, value: Int)]
    /// By bytes, most first.
    package let types: [TypeShare]
    package let tensors: [GGUFTensor]
    package let tokenizer: String?
    package let vocabularySize: Int?
    package let specialTokens: [(role: String, id: Int, spelling: String?)]
    /// Where the tokenizer can be built: the tokens that end an answer. Otherwise why not.
    package let endings: Result<[(id: Int, spelling: String)], TokenizationError>
    package let template: String?

    /// The roles of special tokens in GGUF's keys, `tokenizer.ggml.ROLE_token_id`.
    private static let roles = ["bos", "eos", "eot", "eom", "unknown", "padding"]

    private static let shapeKeys: [(key: String, label: String)] = [
        ("context_length", "context"), ("block_count", "layers"), ("embedding_length", "hidden size"), ("feed_forward_length", "feed-forward"),
        ("attention.head_count", "heads"), ("attention.head_count_kv", "key/value heads"), ("attention.key_length", "head size"),
        ("expert_count", "experts"), ("attention.sliding_window", "sliding window"),
    ]

    package init(_ file: GGUFFile) {
        self.init(path: file.path, fileSize: file.fileSize, header: file.header)
    }

    package init(path: String, fileSize: Int, header: GGUFHeader) {
        let metadata = header.metadata
        self.path = path
        self.fileSize = fileSize
        version = header.version
        func string(_ key: String) -> String? { (try? metadata.string(key)).flatMap { $0 } }
        func integer(_ key: String) -> Int? { (try? metadata.integer(key)).flatMap { $0 } }
        name = string("general.name")
        architecture = string("general.architecture")
        license = string("general.license")
        obstacle = Self.obstacle(metadata)
        parameters = header.tensors.reduce(0) { $0 + $1.elementCount }
        let prefix = architecture.map { $0 + "." } ?? ""
        shape = Self.shapeKeys.compactMap { key, label in integer(prefix + key).map { (key, label, $0) } }
        types = Self.shares(of: header.tensors)
        tensors = header.tensors
        let kinds = [string("tokenizer.ggml.model"), string("tokenizer.ggml.pre")].compactMap { $0 }
        tokenizer = kinds.isEmpty ? nil : kinds.joined(separator: "/")
        let tokens = (try? metadata.strings("tokenizer.ggml.tokens")).flatMap { $0 }
        vocabularySize = tokens?.count
        specialTokens = Self.roles.compactMap { role in
            integer("tokenizer.ggml.\(role)_token_id").map { id in (role, id, tokens.flatMap { $0.indices.contains(id) ? $0[id] : nil }) }
        }
        endings = Self.endings(metadata)
        template = string("tokenizer.chat_template").flatMap { $0.isEmpty ? nil : $0 }
    }

    private static func obstacle(_ metadata: GGUFMetadata) -> String? {
        do {
            _ = try ModelConfiguration(metadata: metadata)
            return nil
        } catch {
            return error.message
        }
    }

    private static func endings(_ metadata: GGUFMetadata) -> Result<[(id: Int, spelling: String)], TokenizationError> {
        do {
            let tokenizer = try Tokenizer(metadata: metadata)
            return .success(tokenizer.endOfGeneration.sorted().map { (Int($0), tokenizer.tokenText($0)) })
        } catch {
            return .failure(error)
        }
    }

    private static func shares(of tensors: [GGUFTensor]) -> [TypeShare] {
        var shares: [GGMLType: TypeShare] = [:]
        for tensor in tensors {
            var share = shares[tensor.type] ?? TypeShare(type: tensor.type)
            share.tensors += 1
            share.elements += tensor.elementCount
            share.bytes += tensor.byteCount
            shares[tensor.type] = share
        }
        return shares.values.sorted { ($0.bytes, $0.type.rawValue) > ($1.bytes, $1.type.rawValue) }
    }
}

// MARK: - For people

extension ModelReport {
    /// Lines that end in a line end. What comes from the file is made harmless for a terminal.
    package func text(tensors listsTensors: Bool) -> String {
        var facts: [(String, String)] = [
            ("file", TerminalText.oneLine(path)),
            ("size", "\(ProgressBar.amount(fileSize)) (\(fileSize) bytes), GGUF version \(version)"),
        ]
        if let name { facts.append(("name", TerminalText.oneLine(name))) }
        facts.append(("architecture", architecture.map(TerminalText.oneLine) ?? "not said"))
        facts.append(("can be run", obstacle.map { "no: \(TerminalText.oneLine($0))" } ?? "yes"))
        facts.append(("licence", license.map(TerminalText.oneLine) ?? "not said"))
        facts.append(("parameters", Self.count(parameters)))
        for (key, label, value) in shape { facts.append((label, key == "context_length" ? "\(value) tokens" : "\(value)")) }
        facts.append(("tokenizer", tokenizerFact))
        for (role, id, spelling) in specialTokens { facts.append(("\(role) token", Self.token(id, spelling))) }
        switch endings {
        case .success(let tokens): facts.append(("answers end at", tokens.isEmpty ? "no token" : tokens.map { Self.token($0.id, $0.spelling) }.joined(separator: ", ")))
        case .failure(let error) where tokenizer != nil: facts.append(("cannot be used", TerminalText.oneLine(error.message)))
        case .failure: break
        }
        facts.append(("template", templateFact))

        let width = facts.map(\.0.count).max()! + 2
        var text = facts.map { $0 + String(repeating: " ", count: width - $0.count) + $1 + "\n" }.joined()
        text += "\n\(typeTable)\n"
        if listsTensors { text += "\n\(tensorTable)\n" }
        return text
    }

    private var tokenizerFact: String {
        guard let tokenizer else { return "none in this file" }
        return TerminalText.oneLine(tokenizer) + (vocabularySize.map { ", \($0) tokens" } ?? "")
    }

    private var templateFact: String {
        guard let template else { return "none: a base model; conversations become a plain transcript" }
        let lines = template.split(separator: "\n", omittingEmptySubsequences: false).count
        return "\(template.unicodeScalars.count) characters, \(lines) line\(lines == 1 ? "" : "s") (--template prints it)"
    }

    private var typeTable: String {
        var table = TextTable(["type", "tensors", "parameters", "bytes", "share"], rightAligned: [1, 2, 3, 4])
        let total = max(1, types.reduce(0) { $0 + $1.bytes })
        for share in types {
            table.add([
                share.type.name, "\(share.tensors)", Self.count(share.elements), "\(share.bytes)",
                "\((Double(share.bytes) / Double(total) * 100).rounded(toPlaces: 1))%",
            ])
        }
        table.add(["all", "\(tensors.count)", Self.count(parameters), "\(types.reduce(0) { $0 + $1.bytes })", ""])
        return table.description
    }

    private var tensorTable: String {
        var table = TextTable(["tensor", "type", "dimensions", "offset", "bytes"], rightAligned: [3, 4])
        for tensor in tensors {
            table.add([
                TerminalText.oneLine(tensor.name), tensor.type.name, tensor.dimensions.map(String.init).joined(separator: " × "), "\(tensor.offset)",
                "\(tensor.byteCount)",
            ])
        }
        return table.description
    }

    private static func token(_ id: Int, _ spelling: String?) -> String {
        spelling.map { "\(id) \(TerminalText.oneLine($0))" } ?? "\(id)"
    }

    /// `134.5 million`
    static func count(_ number: Int) -> String {
        switch number {
        case ..<1_000_000: "\(number)"
        case ..<1_000_000_000: "\((Double(number) / 1e6).rounded(toPlaces: 1)) million"
        default: "\((Double(number) / 1e9).rounded(toPlaces: 2)) billion"
        }
    }
}

// MARK: - For programs

extension ModelReport {
    package func object(tensors listsTensors: Bool, template includesTemplate: Bool) -> JSONObject {
        func text(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
        func integer(_ value: Int) -> JSONValue { .integer(Int64(value)) }
        func token(_ id: Int, _ spelling: String?) -> JSONObject { JSONObject([("id", integer(id)), ("text", text(spelling))]) }
        var object = JSONObject([
            ("file", .string(path)), ("bytes", integer(fileSize)), ("gguf_version", integer(version)), ("name", text(name)),
            ("architecture", text(architecture)), ("supported", .bool(obstacle == nil)), ("obstacle", text(obstacle)), ("license", text(license)),
            ("parameters", integer(parameters)),
            ("shape", .object(JSONObject(shape.map { ($0.key, integer($0.value)) }))),
            (
                "types",
                .array(
                    types.map {
                        .object(
                            JSONObject([
                                ("type", .string($0.type.name)), ("tensors", integer($0.tensors)), ("parameters", integer($0.elements)), ("bytes", integer($0.bytes)),
                            ]))
                    })
            ),
            ("tokenizer", text(tokenizer)), ("vocabulary_size", vocabularySize.map(integer) ?? .null),
            ("special_tokens", .object(JSONObject(specialTokens.map { ($0.role, .object(token($0.id, $0.spelling))) }))),
            ("has_template", .bool(template != nil)),
        ])
        if case .success(let tokens) = endings { object["answers_end_at"] = .array(tokens.map { .object(token($0.id, $0.spelling)) }) }
        if includesTemplate { object["template"] = text(template) }
        if listsTensors {
            object["tensors"] = .array(
                tensors.map {
                    .object(
                        JSONObject([
                            ("name", .string($0.name)), ("type", .string($0.type.name)), ("dimensions", .array($0.dimensions.map(integer))),
                            ("offset", integer($0.offset)), ("bytes", integer($0.byteCount)),
                        ]))
                })
        }
        return object
    }
}
