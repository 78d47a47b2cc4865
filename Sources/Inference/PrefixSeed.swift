/// What cached keys and values depend on besides the tokens: the start of every prefix key. Two sequences share cache blocks
/// only if theirs are equal, so nothing is shared between owners, base models or adapters.
public struct PrefixSeed: Hashable, Sendable {
    /// An adapter as it is applied: its content and weight, never its name.
    public struct Adapter: Hashable, Sendable {
        public var digest: String
        public var scale: Float

        /// - Precondition: the scale is finite.
        public init(digest: String, scale: Float) {
            precondition(scale.isFinite, "an adapter's scale is finite, not \(scale)")
            self.digest = digest
            self.scale = scale
        }
    }

    public var owner: String
    public var baseDigest: String
    /// In the order of application, which is the order of the floating-point sum.
    public var adapters: [Adapter]

    public init(owner: String, baseDigest: String, adapters: [Adapter] = []) {
        self.owner = owner
        self.baseDigest = baseDigest
        self.adapters = adapters
    }
}
