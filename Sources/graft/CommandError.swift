/// Why a command failed, as its user reads it: a sentence without full stop that names what was found and the way out.
struct CommandError: Error, CustomStringConvertible {
    let description: String

    init(_ message: String) {
        description = message
    }
}
