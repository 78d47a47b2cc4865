#if canImport(Glibc)
import Glibc
#endif

/// Chat with somebody at a terminal.
extension ChatLoop {
    func runInteractively(banner: String) throws {
        let terminal = try Terminal()
        var prompt = Prompt()
        say(banner)
        prompt.draw(terminal)
        while !isOver {
            let wasAnswering = machine.isAnswering
            let ready = wait(for: STDIN_FILENO, milliseconds: prompt.decoder.isWaiting ? 50 : -1)
            if ready.signals {
                let seen = signals.drain()
                takeEvents()
                if seen.contains(UInt8(SIGCONT)) { try terminal.enterRawMode() }
                if seen.contains(UInt8(SIGINT)) { prompt.keys.append(.control("c")) }
                if seen.contains(UInt8(SIGCONT)) || seen.contains(UInt8(SIGWINCH)) { prompt.needsDraw = true }
            }
            if ready.input {
                guard let bytes = readInput() else { break }
                prompt.keys += prompt.decoder.decode(bytes)
            } else if !ready.signals {
                prompt.keys += prompt.decoder.flush()
            }
            if machine.isAnswering {
                try takeInterruption(&prompt, terminal)
            }
            if wasAnswering { prompt.needsDraw = true }
            while !prompt.keys.isEmpty, !machine.isAnswering, !isOver {
                try take(prompt.keys.removeFirst(), &prompt, terminal)
            }
            if prompt.needsDraw, !machine.isAnswering, !isOver { prompt.draw(terminal) }
        }
        terminal.write(prompt.view.finish())
    }

    /// The prompt, and the keys that wait for it: those that come while an answer is running are for the next line.
    private struct Prompt {
        var decoder = KeyDecoder()
        var editor = LineEditor()
        var view = LineView(prompt: "> ")
        var keys: [Key] = []
        var needsDraw = false
        /// Ctrl-C came on an empty line; another one leaves.
        var wantsToLeave = false

        mutating func draw(_ terminal: borrowing Terminal) {
            let size = Terminal.size()
            terminal.write(view.draw(editor, columns: size.columns, rows: size.rows))
            needsDraw = false
        }
    }

    /// While an answer is running only Ctrl-C and Ctrl-Z act at once.
    private func takeInterruption(_ prompt: inout Prompt, _ terminal: borrowing Terminal) throws {
        if prompt.keys.contains(.control("z")) {
            prompt.keys.removeAll { $0 == .control("z") }
            try terminal.suspend()
        }
        guard let stop = prompt.keys.lastIndex(of: .control("c")) else { return }
        // As terminals have it, an interruption takes with it what was typed ahead.
        prompt.keys.removeFirst(stop + 1)
        perform(machine.interrupt())
    }

    private func take(_ key: Key, _ prompt: inout Prompt, _ terminal: borrowing Terminal) throws {
        // What was typed last may not have been drawn, and a line that is entered stays on the screen.
        if key == .enter { prompt.draw(terminal) }
        let outcome = prompt.editor.handle(key)
        if outcome != .interrupted(hadText: false) { prompt.wantsToLeave = false }
        switch outcome {
        case .unchanged: return
        case .edited: break
        case .submitted(let line):
            terminal.write(prompt.view.finish())
            perform(machine.enter(line))
        case .interrupted(hadText: true): break
        case .interrupted(hadText: false):
            if prompt.wantsToLeave {
                isOver = true
            } else {
                prompt.wantsToLeave = true
                terminal.write(prompt.view.finish())
                say("Ctrl-C again or Ctrl-D leaves; /help lists the commands.")
            }
        case .endOfInput: isOver = true
        case .clearScreen:
            terminal.write("\u{1B}[H\u{1B}[2J")
            prompt.view.forget()
        case .suspend:
            terminal.write(prompt.view.finish())
            try terminal.suspend()
        }
        prompt.needsDraw = true
    }
}
