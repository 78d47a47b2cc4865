/// Why a GGUF file, or a value in it, was refused.
///
/// The message names the thing (file, key or tensor), what was found and what was expected.
public struct GGUFError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// The file cannot be opened or is not a regular file.
        case cannotOpen
        /// The operating system failed to read the file, or the file shrank after it was opened.
        case cannotRead
        /// The first four bytes are not `GGUF`.
        case notGGUF
        /// A version other than 2 and 3, or a big-endian file.
        case unsupportedVersion
        /// The file ends before something that its header promises.
        case truncated
        /// A count, length, offset, alignment, type or name that no valid file has.
        case malformed
        /// A tensor type that Graft does not read.
        case unsupportedTensorType
        /// The header would take more memory than the file's size plus `GGUFHeader.memoryAllowance`.
        case tooLarge
        /// A metadata value has another type than the one asked for.
        case wrongType
    }

    public let code: Code
    public let message: String

    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

/// A name from a file that nobody has vouched for, fit for one line of an error message: quoted, at most 80 characters, control characters escaped.
package func shown(_ name: String) -> String {
    var result = "'"
    for (index, scalar) in name.unicodeScalars.enumerated() {
        if index == 80 {
            result += "…"
            break
        }
        if scalar.properties.generalCategory == .control || scalar == "'" {
            result += scalar.escaped(asASCII: true)
        } else {
            result.unicodeScalars.append(scalar)
        }
    }
    return result + "'"
}
