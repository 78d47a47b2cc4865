import Adapters
import ArgumentParser
import JSON

#if canImport(Glibc)
import Glibc
#endif

struct AdaptersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adapters",
        abstract: "List, import, export, promote and delete LoRA adapters.",
        discussion: """
            Works on the server's data directory. While a server runs, the commands ask it, and what they change is served at once. An adapter is \
            named NAME (the promoted version), NAME@3 or NAME@latest.
            """,
        subcommands: [
            AdapterList.self, AdapterShow.self, AdapterImport.self, AdapterExport.self, AdapterPromote.self, AdapterRollback.self, AdapterPin.self,
            AdapterDelete.self,
        ])
}

/// The options of every `graft adapters` command.
struct AdapterOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: ArgumentHelp("The base model when no server runs. Default: the setting `model`.", valueName: "name|file"))
    var model: String?
    @Option(help: ArgumentHelp("Settings. Default: Config/graft.yaml, if there is one.", valueName: "file"))
    var config: String?
    @Flag(help: "Print the API's JSON instead of text.")
    var json = false
    @OptionGroup var access: AccessOptions

    func engineSettings() throws -> (settings: Settings, engine: EngineSettings) {
        var options = ModelOptions()
        options.model = model
        options.config = config
        options.threads = nil
        options.context = nil
        options.exact = false
        return try options.engineSettings()
    }
}

private func reference(_ text: String) throws -> AdapterReference {
    guard let reference = AdapterReference(text) else {
        throw ValidationError("'\(TerminalText.oneLine(text))' is no adapter: expected NAME, NAME@3 or NAME@latest, names being 1 to 64 of A-Z a-z 0-9 . _ -")
    }
    return reference
}

private func bareName(_ text: String) throws -> String {
    let found = try reference(text)
    guard found.selector == .promoted else { throw ValidationError("expected a name without a version, found '\(TerminalText.oneLine(text))'") }
    return found.name
}

private func printJSON(_ value: JSONValue) { print(String(decoding: value.serialized(), as: UTF8.self)) }

// MARK: - Text

/// One line on a version: `2  promoted  rank 16  210 pairs  19.5 MB  sha256:1f0c…`.
private func versionRow(_ version: JSONValue, of adapter: JSONValue) -> [String] {
    let number = version["version"]?.integer ?? 0
    var state = version["status"]?.string ?? ""
    if state == "available" {
        if adapter["promoted"]?.integer == number {
            state = "promoted"
        } else if let canary = adapter["canary"], canary["version"]?.integer == number {
            state = "canary \(((canary["share"]?.number ?? 0) * 100).rounded(toPlaces: 1))%"
        }
    }
    return [
        String(number), state, String(version["rank"]?.integer ?? 0), "\((Double(version["bytes"]?.integer ?? 0) / 1e6).rounded(toPlaces: 1)) MB",
        TerminalText.oneLine(version["base"]?.string ?? ""), TerminalText.oneLine(version["source"]?.string ?? ""), String((version["digest"]?.string ?? "").prefix(19)),
    ]
}

private func describe(_ adapter: JSONValue) -> String {
    var table = TextTable(["VERSION", "STATE", "RANK", "SIZE", "BASE", "SOURCE", "DIGEST"], rightAligned: [0, 2, 3])
    var notes = ""
    for version in adapter["versions"]?.array ?? [] {
        table.add(versionRow(version, of: adapter))
        if let reason = version["error"]?.string { notes += "\n@\(version["version"]?.integer ?? 0): \(TerminalText.oneLine(reason))" }
    }
    let pinned = adapter["pinned"]?.bool == true ? ", pinned in memory" : ""
    return "\(TerminalText.oneLine(adapter["name"]?.string ?? "")) (id \(adapter["id"]?.integer ?? 0)\(pinned))\n\(table)\(notes)"
}

private func show(_ adapter: JSONValue, _ options: AdapterOptions) {
    if options.json { printJSON(adapter) } else { print(describe(adapter)) }
}

// MARK: - Commands

struct AdapterList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "All adapters with their promoted versions.")
    @OptionGroup var options: AdapterOptions

    func run() throws {
        let adapters = try openAdapters(options).list()
        if options.json { return printJSON(.array(adapters)) }
        if adapters.isEmpty { return print("no adapters yet: `graft adapters import NAME PATH` brings one") }
        var table = TextTable(["NAME", "PROMOTED", "VERSIONS", "RANK", "SIZE", "BASE"], rightAligned: [1, 2, 3, 4])
        for adapter in adapters {
            let versions = adapter["versions"]?.array ?? []
            let shown = versions.first { $0["version"]?.integer == adapter["promoted"]?.integer } ?? versions.last
            table.add([
                TerminalText.oneLine(adapter["name"]?.string ?? ""), adapter["promoted"]?.integer.map { String($0) } ?? "-", String(versions.count),
                String(shown?["rank"]?.integer ?? 0), "\((Double(shown?["bytes"]?.integer ?? 0) / 1e6).rounded(toPlaces: 1)) MB",
                TerminalText.oneLine(shown?["base"]?.string ?? ""),
            ])
        }
        print(table)
    }
}

struct AdapterShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One adapter with all of its versions.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("The adapter.", valueName: "name")) var name: String

    func run() throws { show(try openAdapters(options).show(try bareName(name)), options) }
}

struct AdapterImport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Publish an adapter from files, as a new version of its name.",
        discussion: "PATH is a PEFT directory (adapter_config.json and adapter_model.safetensors), a GGUF-LoRA file, or a plain tar of such a directory.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("The adapter's name.", valueName: "name")) var name: String
    @Argument(help: ArgumentHelp("A PEFT directory, a .gguf or a .tar file.", valueName: "path")) var path: String
    @Flag(help: "Publish without making it what the bare name stands for.") var noPromote = false

    func run() throws {
        let name = try bareName(name)
        let version = try openAdapters(options).publish(try readAdapterFiles(at: path), as: name, promote: !noPromote)
        if options.json { return printJSON(version) }
        print("published \(name)@\(version["version"]?.integer ?? 0)  rank \(version["rank"]?.integer ?? 0)  \(version["pairs"]?.integer ?? 0) pairs  \(version["digest"]?.string ?? "")")
    }
}

struct AdapterExport: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "export", abstract: "Write an adapter as files for PEFT or llama.cpp.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("NAME, NAME@3 or NAME@latest.", valueName: "name")) var name: String
    @Argument(help: ArgumentHelp("A directory to be made (peft) or a file (gguf).", valueName: "path")) var path: String
    @Option(help: ArgumentHelp("peft or gguf. Default: gguf if the path ends in .gguf, else peft.", valueName: "format")) var format: AdapterFormat?
    @Flag(help: "Replace what is there.") var force = false

    func run() throws {
        let format = format ?? (path.hasSuffix(".gguf") ? .gguf : .peft)
        let files = try openAdapters(options).export(try reference(name), as: format)
        try writeAdapterFiles(files, to: path, format: format, replacing: force)
        if !options.json { print("wrote \(path)\(format == .peft ? "/" + files.map(\.name).joined(separator: ", ") : "")") }
    }
}

extension AdapterFormat: ExpressibleByArgument {}

struct AdapterPromote: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "promote", abstract: "Make a version what the bare name stands for, or give it a share of the traffic first.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("NAME@3 or NAME@latest; NAME alone is its newest version.", valueName: "name")) var name: String
    @Option(help: ArgumentHelp("Send only this share (0 to 1) of the bare name's traffic there; 0 ends it.", valueName: "share")) var share: Double?

    func validate() throws {
        if let share, !(0...1).contains(share) { throw ValidationError("--share takes 0 to 1, not \(share).") }
    }

    func run() throws {
        let reference = try reference(name)
        var number: Int?
        if case .number(let found) = reference.selector { number = found }
        show(try openAdapters(options).promote(reference.name, number: number, share: share), options)
    }
}

struct AdapterRollback: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rollback", abstract: "End a trial share, or go back to the version promoted before.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("The adapter.", valueName: "name")) var name: String

    func run() throws { show(try openAdapters(options).rollback(try bareName(name)), options) }
}

struct AdapterPin: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "pin", abstract: "Keep an adapter in memory whatever the budget.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("The adapter.", valueName: "name")) var name: String
    @Flag(help: "Let it go again.") var off = false

    func run() throws { show(try openAdapters(options).setPinned(try bareName(name), !off), options) }
}

struct AdapterDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete a version, or a name with all of its versions.", discussion: "Answers that are being written finish as they began.")
    @OptionGroup var options: AdapterOptions
    @Argument(help: ArgumentHelp("NAME for all versions, NAME@3 for one.", valueName: "name")) var name: String

    func run() throws {
        let reference = try reference(name)
        try openAdapters(options).delete(reference)
        if !options.json { print("deleted \(reference)") }
    }
}
