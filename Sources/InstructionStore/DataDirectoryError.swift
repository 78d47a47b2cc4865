/// Why a data directory could not be opened. The message names the directory, what was found and the way out.
public struct DataDirectoryError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// Another process has it open; `holder` says which.
        case held
        /// The disk is full, or failed, or permissions are missing.
        case storageFull, storage
        /// The address to announce is none.
        case invalidAddress
    }

    /// The process that has a data directory open.
    public struct Holder: Sendable, Equatable {
        public var processID: Int32
        /// Where its server listens, once it has announced that.
        public var address: String?
        /// The SHA-256 of its certificate in hexadecimal digits, when it speaks TLS.
        public var certificate: String?

        public init(processID: Int32, address: String?, certificate: String? = nil) {
            self.processID = processID
            self.address = address
            self.certificate = certificate
        }
    }

    public let code: Code
    public let message: String
    /// Only for `held`; `nil` also when the holder has not written its process id yet.
    public let holder: Holder?

    public init(_ code: Code, _ message: String, holder: Holder? = nil) {
        self.code = code
        self.message = message
        self.holder = holder
    }

    public var description: String { message }
}
