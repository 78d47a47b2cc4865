/// A stretch of prompt text together with who wrote it.
///
/// Control tokens are recognised only where all of their characters are trusted, so that a request cannot end its own turn by
/// spelling `<|im_end|>`.
public struct TextPiece: Sendable, Equatable {
    public var text: String
    /// Written by the template or the model file, not by a request.
    public var isTrusted: Bool

    public init(text: String, isTrusted: Bool) {
        self.text = text
        self.isTrusted = isTrusted
    }
}
