import CKernels

/// The memory of cached keys and values: `blockCount` blocks of 32 tokens, each holding every layer's share. Which block belongs to whom is
/// the scheduler's business. Pages are touched when they are first written. One owner at a time.
public final class KVCache {
    /// Tokens in a block.
    public static let blockTokens = Int(GRAFT_KV_BLOCK)
    /// The widest head that the attention kernel takes; head sizes are multiples of 16.
    public static let maximumHeadDim = Int(GRAFT_MAX_HEAD_DIM)

    /// The most query heads that share a head of keys and values: the attention kernel keeps a whole group on its stack.
    public static let maximumGroup = Int(GRAFT_ATTENTION_ROWS)

    /// How keys and values are stored.
    public enum Precision: String, Sendable, CaseIterable {
        case float32 = "f32", float16 = "f16", int8 = "q8"
    }

    public let layers: Int, kvHeads: Int, headDim: Int, blockCount: Int
    public let precision: Precision
    let layout: graft_kv_layout
    private let region: MemoryRegion

    var blockStride: Int64 { Int64(layers) * layout.bytes }

    /// Bytes that one block of such a cache takes.
    public static func blockBytes(layers: Int, kvHeads: Int, headDim: Int, precision: Precision) -> Int {
        layers * Int(layout(kvHeads: kvHeads, headDim: headDim, precision: precision).bytes)
    }

    private static func layout(kvHeads: Int, headDim: Int, precision: Precision) -> graft_kv_layout {
        let type = switch precision {
        case .float32: GRAFT_KV_F32
        case .float16: GRAFT_KV_F16
        case .int8: GRAFT_KV_Q8
        }
        return graft_kv_layout_for(Int32(type.rawValue), Int32(kvHeads), Int32(headDim))
    }

    public init(layers: Int, kvHeads: Int, headDim: Int, blockCount: Int, precision: Precision) throws(KernelError) {
        guard headDim % 16 == 0, headDim <= KVCache.maximumHeadDim else {
            throw KernelError(.unsupportedShape, "attention heads of \(headDim): expected a multiple of 16 up to \(KVCache.maximumHeadDim)")
        }
        self.layers = layers
        self.kvHeads = kvHeads
        self.headDim = headDim
        self.blockCount = blockCount
        self.precision = precision
        layout = KVCache.layout(kvHeads: kvHeads, headDim: headDim, precision: precision)
        region = try MemoryRegion(byteCount: blockCount * layers * Int(layout.bytes))
    }

    public var byteCount: Int { region.byteCount }

    func base(layer: Int) -> UnsafeMutablePointer<UInt8> {
        precondition((0..<layers).contains(layer))
        return region.base.assumingMemoryBound(to: UInt8.self) + layer * Int(layout.bytes)
    }
}
