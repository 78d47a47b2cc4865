import Modeling
import TLS

extension AdapterContent {
    /// SHA-256 of what the adapter computes, as 64 lower-case hexadecimal digits: the same whatever file it came from and however it was stored.
    ///
    /// Hashed are the line `graft adapter content 1` and, for each pair by layer and projection, six little-endian u32 (layer, projection, rank, bits of
    /// the scale, count of A's numbers, count of B's), then the float32 numbers of A and of B.
    public var digest: String {
        var digest = SHA256Digest()
        digest.update(Array("graft adapter content 1\n".utf8))
        let order = pairs.indices.sorted { (pairs[$0].layer, pairs[$0].projection.rawValue) < (pairs[$1].layer, pairs[$1].projection.rawValue) }
        for index in order {
            let pair = pairs[index]
            let head = [
                UInt32(pair.layer), UInt32(pair.projection.rawValue), UInt32(pair.rank), pair.scale.bitPattern, UInt32(pair.a.count), UInt32(pair.b.count),
            ].map(\.littleEndian)
            head.withUnsafeBytes { digest.update($0) }
            pair.a.withUnsafeBytes { digest.update($0) }
            pair.b.withUnsafeBytes { digest.update($0) }
        }
        return digest.finishHexadecimal()
    }
}
