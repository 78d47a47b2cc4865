import Modeling

/// Random low-rank pairs for every projection; `seed` makes them.
func randomAdapter(
    _ configuration: ModelConfiguration, _ name: String, seed: UInt64, rank: Int, strength: Float, numerics: Numerics = .fast
) throws -> Adapter {
    var state = seed
    func values(_ count: Int, _ size: Float) -> [Float] {
        (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(Int32(truncatingIfNeeded: state >> 32)) * 0x1p-31 * size
        }
    }
    let pairs = (0..<configuration.layerCount).flatMap { layer in
        Projection.allCases.map { projection in
            let shape = configuration.shape(of: projection)
            return LowRankPair(
                layer: layer, projection: projection, scale: 1, rank: rank, a: values(rank * shape.columns, 0.05), b: values(shape.rows * rank, strength))
        }
    }
    return try Adapter(name: name, version: 1, digest: "digest-\(seed)", configuration: configuration, numerics: numerics, pairs: pairs)
}
