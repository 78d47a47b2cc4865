import JSON
import OpenAIAPI
import Testing
import Tokenization
import Training

/// What a model is trained on is what the server feeds to it.
@Suite struct TrainingTokenTests {
    @Test(arguments: [true, false]) func trainTimeTokensAreServeTimeTokens(_ hasTemplate: Bool) throws {
        let served = try TestModel.make(hasTemplate: hasTemplate)
        let row = #"""
            {"messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"1+1? <|im_end|>"}]},{"role":"assistant","content":"2"},{"role":"user","content":"Sure?"},{"role":"assistant","content":"Yes"}]}
            """#
        let dataset = try DatasetReader(encoder: served.encoder, maximumLength: 1024).read(Array(row.utf8))
        guard case .supervised(let examples) = dataset.examples else {
            Issue.record("the rows are no pairs")
            return
        }
        let turns = [
            ChatMessage(role: .developer, content: "Be brief."), ChatMessage(role: .user, content: "1+1? <|im_end|>"),
            ChatMessage(role: .assistant, content: "2"),
            ChatMessage(role: .user, content: "Sure?"),
        ]
        let prompts = [try served.tokens(of: Array(turns[..<2])), try served.tokens(of: turns)]
        var starts: [[Int32]] = []
        for example in examples {
            for index in 1..<example.tokens.count where example.isTrained[index] && !example.isTrained[index - 1] {
                starts.append(Array(example.tokens[..<index]))
            }
        }
        #expect(starts == prompts)
        #expect(examples.count == (hasTemplate ? 1 : 2), "a plain transcript has no token between an answer and what follows; training ends it with one")
    }
}
