import GGUF
import Kernels
import Modeling
import Testing

/// Metadata that no model can have is refused by key, before anything is allocated by it.
struct ModelConfigurationTests {
    static let sound: [(String, GGUFValue)] = [
        ("general.architecture", .string("llama")), ("llama.block_count", .uint32(2)), ("llama.embedding_length", .uint32(64)),
        ("llama.feed_forward_length", .uint32(128)), ("llama.attention.head_count", .uint32(4)), ("llama.attention.head_count_kv", .uint32(2)),
        ("llama.context_length", .uint32(256)), ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)), ("llama.vocab_size", .uint32(32)),
    ]

    static func configuration(_ changes: [(String, GGUFValue)] = [], without: String? = nil) throws(ModelingError) -> ModelConfiguration {
        let changed = Set(changes.map(\.0))
        return try ModelConfiguration(metadata: GGUFMetadata(sound.filter { !changed.contains($0.0) && $0.0 != without } + changes))
    }

    @Test func soundMetadataIsRead() throws {
        let c = try ModelConfigurationTests.configuration()
        #expect(c.architecture == .llama && c.layerCount == 2 && c.headDim == 16 && c.rotaryDim == 16 && c.vocabularySize == 32)
        #expect(c.ropeTheta == 10_000 && c.attentionScale == 0.25 && c.window(layer: 0) == nil)
    }

    @Test(arguments: [
        ("general.architecture", GGUFValue.string("mamba")), ("llama.block_count", .uint32(0)), ("llama.block_count", .uint32(1 << 30)),
        ("llama.embedding_length", .uint64(1 << 40)), ("llama.attention.head_count_kv", .uint32(3)), ("llama.attention.head_count", .uint32(0)),
        ("llama.attention.key_length", .uint32(17)), ("llama.attention.key_length", .uint32(4096)), ("llama.attention.value_length", .uint32(32)),
        ("llama.rope.dimension_count", .uint32(15)), ("llama.rope.dimension_count", .uint32(64)), ("llama.context_length", .uint32(0)),
        ("llama.attention.layer_norm_rms_epsilon", .float32(.nan)), ("llama.attention.layer_norm_rms_epsilon", .float32(-1)),
        ("llama.rope.freq_base", .float32(0)), ("llama.rope.scaling.type", .string("yarn")), ("llama.expert_count", .uint32(8)),
        ("llama.block_count", .string("two")),
    ])
    func impossibleValuesAreRefusedByName(key: String, value: GGUFValue) {
        #expect { try ModelConfigurationTests.configuration([(key, value)]) } throws: { "\($0)".contains(key) }
    }

    @Test(arguments: ["general.architecture", "llama.block_count", "llama.context_length", "llama.attention.layer_norm_rms_epsilon"])
    func missingKeysAreNamed(key: String) {
        #expect { try ModelConfigurationTests.configuration(without: key) } throws: { "\($0)".contains(key) && "\($0)".contains("absent") }
    }

    /// The attention kernel keeps a whole group of query heads on its stack.
    @Test func groupsOfHeadsAreBounded() throws {
        func heads(_ count: UInt32) -> [(String, GGUFValue)] {
            [("llama.attention.head_count", .uint32(count)), ("llama.attention.head_count_kv", .uint32(1)), ("llama.attention.key_length", .uint32(16))]
        }
        #expect(try ModelConfigurationTests.configuration(heads(48)).headCount == KVCache.maximumGroup)
        #expect { try ModelConfigurationTests.configuration(heads(49)) } throws: { "\($0)".contains("at most 48") }
    }
}
