import FoundationEssentials
import Inference
import Testing

/// The chain against the logits processors of Hugging Face transformers; the fixture comes from make_sampling_chain.py.
struct SamplingOracleTests {
    struct Case: Decodable {
        struct Parameters: Decodable {
            var repetitionPenalty: Float?
            var topK: Int?
            var typicalP: Float?
            var topP: Float?
            var minP: Float?
            var temperature: Float
        }

        var logits: [Float]
        var prompt: [Int32]
        var parameters: Parameters
        /// Pairs of token and probability.
        var kept: [[Double]]
    }

    @Test func chainEqualsTransformers() throws {
        let url = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/sampling_chain.json")
        let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: url))
        #expect(cases.count == 48)
        for (number, oracle) in cases.enumerated() {
            var parameters = SamplingParameters()
            parameters.penaltyWindow = -1
            parameters.temperature = oracle.parameters.temperature
            parameters.repetitionPenalty = oracle.parameters.repetitionPenalty ?? 1
            parameters.topK = oracle.parameters.topK ?? 0
            parameters.typicalP = oracle.parameters.typicalP ?? 1
            parameters.topP = oracle.parameters.topP ?? 1
            parameters.minP = oracle.parameters.minP ?? 0
            var logits = oracle.logits
            var scratch = SamplerScratch(vocabularySize: logits.count)
            let sampler = Sampler(parameters, prompt: oracle.prompt)
            let found = try logits.withUnsafeMutableBufferPointer { try sampler.distribution(logits: $0, scratch: &scratch) }
            #expect(found.map { Int($0.token) } == oracle.kept.map { Int($0[0]) }, "case \(number)")
            for (a, b) in zip(found, oracle.kept) {
                #expect(abs(a.probability - b[1]) < 1e-5 * b[1] + 1e-9, "case \(number)")
            }
        }
    }
}
