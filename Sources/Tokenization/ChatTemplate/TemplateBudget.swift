/// How much one render may cost; reaching a limit ends it with an error that names the limit.
///
/// Templates come with the model file, but how often their loops turn depends on the request.
public struct TemplateBudget: Sendable, Equatable {
    /// Evaluated expressions and statements, plus one for each element handled and each 256 bytes of text moved.
    public var maximumSteps: Int
    /// Bytes (UTF-8) of the rendered text, and of every text and JSON dump on the way there.
    public var maximumOutputBytes: Int
    /// Nesting of expressions, blocks and macro calls together. The default fits a stack of 256 KiB.
    public var maximumDepth: Int

    public init(maximumSteps: Int = 20_000_000, maximumOutputBytes: Int = 64 << 20, maximumDepth: Int = 200) {
        self.maximumSteps = maximumSteps
        self.maximumOutputBytes = maximumOutputBytes
        self.maximumDepth = maximumDepth
    }

    /// Enough for every conversation that fits a context window; a runaway template ends within a few seconds.
    public static let `default` = TemplateBudget()
}
