import ArgumentParser
import GGUF
import JSON

struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show what a GGUF file holds.",
        discussion: """
            Architecture, sizes, tensor types, tokenizer and template, read from the file's header: nothing is loaded, and files of architectures \
            that Graft cannot run are shown too.
            """)

    @Argument(help: ArgumentHelp("The path of a GGUF file, or a model of the catalogue.", valueName: "file|name"))
    var model: String
    @Flag(help: "Print the chat template and nothing else.")
    var template = false
    @Flag(help: "List the tensors as well.")
    var tensors = false
    @Flag(help: "Print one JSON object; with --tensors and --template these are in it.")
    var json = false
    @Option(help: ArgumentHelp("Settings. Default: Config/graft.yaml, if there is one.", valueName: "file"))
    var config: String?

    func run() throws {
        let found = try findModel(model, in: Settings(path: config).string("models_directory", "Models"))
        let report = ModelReport(try GGUFFile(path: found.path))
        if json {
            writeAll(String(decoding: JSONValue.object(report.object(tensors: tensors, template: template)).serialized(), as: UTF8.self) + "\n", to: 1)
        } else if template {
            guard let source = report.template else {
                throw CommandError("\(found.path): there is no chat template in this file; `graft chat` talks with such a base model in a plain transcript")
            }
            writeAll(Terminal.showsOutput ? TerminalText.sanitized(source) + "\n" : source, to: 1)
        } else {
            writeAll(report.text(tensors: tensors), to: 1)
        }
    }
}
