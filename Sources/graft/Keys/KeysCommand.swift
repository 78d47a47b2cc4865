import ArgumentParser
import InstructionStore
import JSON
import Observability
import OpenAIAPI

#if canImport(Glibc)
import Glibc
#endif

struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Create, list and revoke API keys.",
        discussion: """
            Works on the server's data directory. While a server runs, the commands ask it, with a key of the scope admin in GRAFT_API_KEY or \
            --api-key-file if it wants one. From the first key on every request needs one, also on loopback. A key belongs to an owner, whose files, \
            jobs, adapters and kept completions it opens; make a second key for the same owner, then revoke the first, to change keys.
            """,
        subcommands: [KeyCreate.self, KeyList.self, KeyRevoke.self])
}

/// The options of every `graft keys` command.
struct KeyOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Settings. Default: Config/graft.yaml, if there is one.", valueName: "file"))
    var config: String?
    @Option(help: ArgumentHelp("The server to ask. Default: the one that runs on the data directory.", valueName: "http[s]://host:port"))
    var server: String?
    @Option(help: ArgumentHelp("Authorities (PEM) that the server's certificate may come from, beside the system's. Default: GRAFT_CA_FILE.", valueName: "file"))
    var caFile: String?
    @OptionGroup var access: AccessOptions
    @Flag(help: "Print the API's JSON instead of text.")
    var json = false
}

extension KeyScope: ExpressibleByArgument {}

private func printJSON(_ value: JSONValue) { print(String(decoding: value.serialized(), as: UTF8.self)) }

struct KeyCreate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a key and print it, once.",
        discussion: "The key alone goes to standard output. It is kept nowhere: whoever loses it makes another one.")
    @OptionGroup var options: KeyOptions
    @Argument(help: ArgumentHelp("What people call the key.", valueName: "name")) var name: String
    @Option(help: ArgumentHelp("Whose objects it opens. Default: local, whose are those of a server without keys.", valueName: "owner"))
    var owner = InstructionStore.localOwner
    @Option(
        name: .customLong("scope"),
        help: ArgumentHelp("infer, files, train or admin; may be given several times. Default: infer, files and train.", valueName: "scope"))
    var scopes: [KeyScope] = []
    @Option(help: ArgumentHelp("When it ends: a number with s, m, h or d, such as 90d. Default: never.", valueName: "time"))
    var expiresIn: String?
    @Option(help: ArgumentHelp("Generation requests a minute; 0 is no limit. Default: the setting limits.requests_per_minute.", valueName: "n"))
    var requestsPerMinute: Int?
    @Option(help: ArgumentHelp("Tokens a minute, prompts and answers; 0 is no limit. Default: the setting limits.tokens_per_minute.", valueName: "n"))
    var tokensPerMinute: Int?

    func validate() throws {
        if let expiresIn, KeyLifetime.seconds(expiresIn) == nil {
            throw ValidationError("--expires-in takes a number with s, m, h or d, such as 90d, not '\(TerminalText.oneLine(expiresIn))'.")
        }
        for (option, value) in [("--requests-per-minute", requestsPerMinute), ("--tokens-per-minute", tokensPerMinute)] {
            if let value, !(0...InstructionStore.largestKeyLimit).contains(value) {
                throw ValidationError("\(option) takes 0 to \(InstructionStore.largestKeyLimit), not \(value).")
            }
        }
    }

    func run() throws {
        let key = try openKeys(options).create(
            WantedKey(
                name: name, owner: owner, scopes: scopes, lifetime: expiresIn.flatMap(KeyLifetime.seconds),
                limits: KeyLimits(requestsPerMinute: requestsPerMinute, tokensPerMinute: tokensPerMinute)))
        if options.json { return printJSON(key) }
        guard let text = key["value"]?.string else { throw CommandError("the server's answer has no key in it") }
        print(text)
        writeAll(
            "created \(key["id"]?.string ?? "") for \(key["owner"]?["id"]?.string ?? "") with \(scopeText(key)); this is the only time that the key is shown\n",
            to: STDERR_FILENO)
    }
}

private func scopeText(_ key: JSONValue) -> String { (key["scopes"]?.array ?? []).compactMap(\.string).joined(separator: ",") }

struct KeyList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "All keys, without their texts.")
    @OptionGroup var options: KeyOptions

    func run() throws {
        let keys = try openKeys(options).list()
        if options.json { return printJSON(.array(keys)) }
        if keys.isEmpty { return print("no keys yet, so requests need none: `graft keys create NAME` makes one") }
        var table = TextTable(["ID", "NAME", "OWNER", "SCOPES", "REQUESTS/MIN", "TOKENS/MIN", "STATE", "KEY"], rightAligned: [4, 5])
        let now = Int64(time(nil))
        for key in keys {
            func limit(_ name: String) -> String { key[name]?.integer.map { $0 == 0 ? "unlimited" : String($0) } ?? "-" }
            let state =
                if key["revoked_at"]?.integer != nil {
                    "revoked"
                } else if let end = key["expires_at"]?.integer {
                    end <= now ? "expired" : "until \(timestamp(seconds: Int(end), nanoseconds: 0).prefix(16))Z"
                } else {
                    "active"
                }
            table.add([
                key["id"]?.string ?? "", TerminalText.oneLine(key["name"]?.string ?? ""), key["owner"]?["id"]?.string ?? "", scopeText(key),
                limit("requests_per_minute"), limit("tokens_per_minute"), state, key["redacted_value"]?.string ?? "",
            ])
        }
        print(table)
    }
}

struct KeyRevoke: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "End a key.", discussion: "A running server refuses it at once, and ends within a second what runs for it.")
    @OptionGroup var options: KeyOptions
    @Argument(help: ArgumentHelp("The key's id, key_…, as `graft keys list` shows it.", valueName: "id")) var id: String

    func run() throws {
        guard StoredKey.isValidID(id) else {
            // Somebody may have pasted the key itself, so it is not shown.
            throw ValidationError("expected a key's id, key_ and 16 hexadecimal digits, as `graft keys list` shows it.")
        }
        try openKeys(options).revoke(id)
        if !options.json { print("revoked \(id)") }
    }
}
