/// Why a safetensors file was refused. The message names the tensor, what was found and what was expected.
public struct SafetensorsError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// The file ends before something that its header promises.
        case truncated
        /// A length, header, name, type, shape or offset that no valid file has, or bytes that belong to no tensor.
        case malformed
        /// The header is longer than `SafetensorsFile.longestHeader`, or would take more memory than the file's size plus `SafetensorsFile.memoryAllowance`.
        case tooLarge
    }

    public let code: Code
    public let message: String

    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
