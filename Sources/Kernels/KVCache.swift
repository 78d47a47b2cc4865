import CKernels

/// The memory of cached keys and values: `blockCount` blocks of 32 tokens, each holding every layer's share. Layers that look back over a sliding window can have
/// blocks of their own, which go by numbers of their own: `windowBlockCount`, each holding the share of all those layers. Which block belongs to whom is the
/// scheduler's business. Pages are touched when they are first written. One owner at a time.
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

    /// Layers that share blocks.
    private struct Group {
        let layers: Int, blockCount: Int
        let region: MemoryRegion

        init(layers: Int, blockCount: Int, layout: graft_kv_layout) throws(KernelError) {
            self.layers = layers
            self.blockCount = blockCount
            region = try MemoryRegion(byteCount: blockCount * layers * Int(layout.bytes))
        }
    }

    public let layers: Int, kvHeads: Int, headDim: Int, blockCount: Int, windowBlockCount: Int
    public let precision: Precision
    let layout: graft_kv_layout
    private let all: Group
    /// `nil`: no layer has blocks of its own.
    private let windowed: Group?
    /// Of each layer, whether it is one of those with windows, and its place among its group's.
    private let places: [(isWindowed: Bool, index: Int)]

    /// Bytes that one block of so many layers takes.
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

    /// - Parameters:
    ///   - windowedLayers: those whose keys and values are in window blocks.
    ///   - windowBlockCount: of no meaning without such layers.
    /// - Throws: `KernelError` for heads that the kernels do not take, or if the system refuses the memory.
    public init(
        layers: Int, windowedLayers: Set<Int> = [], kvHeads: Int, headDim: Int, blockCount: Int, windowBlockCount: Int = 0, precision: Precision
    ) throws(KernelError) {
        guard headDim % 16 == 0, headDim <= KVCache.maximumHeadDim else {
            throw KernelError(.unsupportedShape, "attention heads of \(headDim): expected a multiple of 16 up to \(KVCache.maximumHeadDim)")
        }
        precondition(windowedLayers.allSatisfy { (0..<layers).contains($0) }, "windows on layers that are not there")
        self.layers = layers
        self.kvHeads = kvHeads
        self.headDim = headDim
        self.blockCount = blockCount
        self.windowBlockCount = windowedLayers.isEmpty ? 0 : windowBlockCount
        self.precision = precision
        layout = KVCache.layout(kvHeads: kvHeads, headDim: headDim, precision: precision)
        var places: [(isWindowed: Bool, index: Int)] = [], counts = (all: 0, windowed: 0)
        for layer in 0..<layers {
            if windowedLayers.contains(layer) {
                places.append((true, counts.windowed))
                counts.windowed += 1
            } else {
                places.append((false, counts.all))
                counts.all += 1
            }
        }
        self.places = places
        all = try Group(layers: counts.all, blockCount: blockCount, layout: layout)
        windowed = windowedLayers.isEmpty ? nil : try Group(layers: counts.windowed, blockCount: windowBlockCount, layout: layout)
    }

    public var byteCount: Int { all.region.byteCount + (windowed?.region.byteCount ?? 0) }
    /// Whether there are window blocks.
    public var hasWindowBlocks: Bool { windowed != nil }
    /// Whether a layer's keys and values are in window blocks.
    public func isWindowed(layer: Int) -> Bool { places[layer].isWindowed }

    /// Blocks of a layer's kind, and bytes from one to the next.
    func blockCount(layer: Int) -> Int { group(of: layer).blockCount }
    func blockStride(layer: Int) -> Int64 { Int64(group(of: layer).layers) * layout.bytes }

    func base(layer: Int) -> UnsafeMutablePointer<UInt8> {
        group(of: layer).region.base.assumingMemoryBound(to: UInt8.self) + places[layer].index * Int(layout.bytes)
    }

    private func group(of layer: Int) -> Group { places[layer].isWindowed ? windowed! : all }
}
