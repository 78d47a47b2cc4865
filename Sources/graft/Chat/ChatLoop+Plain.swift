import ArgumentParser

#if canImport(Glibc)
import Glibc
#endif

/// Chat with a script, or at a terminal that is none of ours: standard input's lines are answered one after the other.
extension ChatLoop {
    func runPlainly() throws {
        var input: [UInt8] = []
        var isAtEnd = false
        while !isOver, !hasFailed {
            if !machine.isAnswering, isAtEnd || input.contains(UInt8(ascii: "\n")) {
                if isAtEnd, input.isEmpty { break }
                let end = input.firstIndex(of: UInt8(ascii: "\n")) ?? input.endIndex
                let line = String(decoding: input[..<end], as: UTF8.self)
                input.removeFirst(min(end + 1, input.count))
                perform(machine.enter(line))
                continue
            }
            if !isScripted, !machine.isAnswering, input.isEmpty { writeAll("> ", to: STDOUT_FILENO) }
            // The next lines stay where they are until the answer is there.
            let ready = wait(for: machine.isAnswering ? nil : STDIN_FILENO)
            if ready.signals {
                let seen = signals.drain()
                takeEvents()
                if seen.contains(UInt8(SIGINT)) {
                    guard machine.isAnswering else { die(of: SIGINT) }
                    perform(machine.interrupt())
                }
            }
            if ready.input {
                if let bytes = readInput() { input += bytes } else { isAtEnd = true }
            }
        }
        if hasFailed { throw ExitCode(1) }
    }
}
