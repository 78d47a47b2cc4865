/// How many blocks of keys and values fit some memory, of each kind: those of the layers that see everything, and those of the layers with a sliding window, which
/// need no more than all windows at once, however long the sequences are. Up to there each block has its window block. Of memory beyond that, blocks come first:
/// they are what sequences wait for. What is left when there are as many as can be used goes to window blocks, by which prompts find the prefixes that are cached.
package struct CacheCapacity: Equatable {
    package let blockCount: Int
    /// 0: no layer has a window.
    package let windowBlockCount: Int

    /// - Parameters:
    ///   - byteCount: exceeded only if not even one block of each kind fits.
    ///   - blockBytes: of the layers that see everything.
    ///   - windowBlockBytes: of those with a window; 0: there are none.
    ///   - blocks: the most that can be used at once.
    ///   - windowBlocks: the most of the others.
    package init(byteCount: Int, blockBytes: Int, windowBlockBytes: Int, blocks: Int, windowBlocks: Int) {
        let pairs = min(max(byteCount / (blockBytes + windowBlockBytes), 1), blocks)
        guard windowBlockBytes > 0, pairs > windowBlocks else {
            (blockCount, windowBlockCount) = (pairs, windowBlockBytes > 0 ? pairs : 0)
            return
        }
        blockCount = blockBytes == 0 ? blocks : min((byteCount - windowBlocks * windowBlockBytes) / blockBytes, blocks)
        windowBlockCount = min(max((byteCount - blockCount * blockBytes) / windowBlockBytes, windowBlocks), blockCount)
    }
}
