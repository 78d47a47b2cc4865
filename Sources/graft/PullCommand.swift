import ArgumentParser
import ModelStore

#if canImport(Glibc)
import Glibc
#endif

struct PullCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Fetch a model into the model directory.",
        discussion: """
            A name of the catalogue (--list shows them) is fetched from where the catalogue says and compared with its pinned SHA-256; an https \
            address of a .gguf file works too, and is compared when it ends in #sha256=DIGEST. An interrupted pull goes on where it stopped. The \
            file appears when it is whole and verified; after a wrong checksum nothing is kept.
            """)

    @Argument(help: ArgumentHelp("A model of the catalogue, or the https address of a .gguf file.", valueName: "name|address"))
    var model: String?
    @Flag(help: "List the catalogue and what of it is here.")
    var list = false
    @Option(help: ArgumentHelp("Settings. Default: Config/graft.yaml, if there is one.", valueName: "file"))
    var config: String?

    func validate() throws {
        if list == (model != nil) {
            throw ValidationError(list ? "--list takes no model" : "there is no model to fetch: give a name of the catalogue (--list shows them) or an https address")
        }
    }

    func run() throws {
        let directory = try modelDirectory(Settings(path: config).string("models_directory", "Models"))
        guard let model else { return print(catalogTable(directory)) }
        let display = PullDisplay()
        let pulled: ModelDirectory.PulledModel
        do {
            pulled = try directory.pull(model) { display.show($0) }
            display.clear()
        } catch {
            display.clear()
            throw explained(error, asked: model, in: directory, orElse: "the https address of a .gguf file works too")
        }
        print("\(pulled.path): \(ProgressBar.amount(pulled.size)), sha256 \(pulled.sha256)\(pulled.wasPresent ? ", was here already" : "")")
    }

    private func catalogTable(_ directory: ModelDirectory) -> String {
        let catalog = directory.catalog
        var table = TextTable(["name", "size", "licence", "here", ""])
        for model in catalog.models {
            let isHere = access(directory.path(of: model), F_OK) == 0
            let note = model.name == catalog.defaultName ? " (default)" : ""
            table.add([model.name + note, ProgressBar.amount(model.size), model.license, isHere ? "yes" : "no", model.summary])
        }
        return table.description
    }
}

/// Shows a pull's progress on standard error: one line that changes on a terminal, and a line now and then elsewhere.
private final class PullDisplay {
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let clock = ContinuousClock()
    private var rate = TransferRate()
    private var nextDraw: ContinuousClock.Instant?
    private var isDrawn = false
    private var sparse = SparseProgress()

    func show(_ progress: PullProgress) {
        let now = clock.now
        rate.record(progress, at: now)
        if isTerminal {
            if let nextDraw, now < nextDraw { return }
            nextDraw = now + .milliseconds(100)
            isDrawn = true
            writeAll("\r" + ProgressBar.line(progress, rate: rate, width: Terminal.size(STDERR_FILENO).columns - 1) + "\u{1B}[K", to: STDERR_FILENO)
        } else if sparse.isDue(progress) {
            writeAll(ProgressBar.line(progress, rate: rate) + "\n", to: STDERR_FILENO)
        }
    }

    func clear() {
        if isDrawn { writeAll("\r\u{1B}[K", to: STDERR_FILENO) }
    }
}

/// Chooses which reports of a pull deserve a line in a log: the first of each phase, and then one for each tenth of the whole (or each
/// 100 MB where the whole is not known).
package struct SparseProgress {
    private var phase: PullProgress.Phase?
    private var shownStep = 0

    package init() {}

    package mutating func isDue(_ progress: PullProgress) -> Bool {
        let step = progress.fraction.map { Int($0 * 10) } ?? progress.bytes / 100_000_000
        guard progress.phase != phase || step > shownStep else { return false }
        phase = progress.phase
        shownStep = step
        return true
    }
}
