/// Why a model could not be found, fetched or verified. The message names the model or file, what was found, what was expected, and the way out.
public struct ModelStoreError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// The catalogue cannot be read, or says something impossible.
        case invalidCatalog
        /// Neither a catalogue name nor an existing file.
        case unknownModel
        /// A catalogue name whose file is not in the model directory.
        case notDownloaded
        /// An address that is not https or does not name a file.
        case invalidAddress
        /// A file of that name is there and came from somewhere else.
        case alreadyExists
        /// python3, pip or curl is not installed.
        case toolMissing
        /// pip or curl failed; what was verified so far is kept, and the next pull goes on from there.
        case downloadFailed
        /// The bytes are not those that the catalogue pins. Nothing of them is kept.
        case wrongChecksum
        /// The file system refused something, or is too full.
        case storage
    }

    public let code: Code
    public let message: String

    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
