import ArgumentParser
import Inference

/// How the commands that write an answer choose its tokens.
struct SamplingOptions: ParsableArguments {
    @Option(help: "0 takes the most likely token each time and always gives the same answer; higher values vary more.")
    var temperature: Float = 0.7
    @Option(help: ArgumentHelp("Choose among the k most likely tokens; 0 among all.", valueName: "k"))
    var topK = 0
    @Option(help: ArgumentHelp("Choose among the likeliest tokens that reach this probability together; 1 among all.", valueName: "p"))
    var topP: Float = 0.95
    @Option(help: ArgumentHelp("Drop tokens less likely than this share of the likeliest; 0 drops none.", valueName: "p"))
    var minP: Float = 0
    @Option(help: ArgumentHelp("Locally typical sampling; 1 is off.", valueName: "p"))
    var typicalP: Float = 1
    @Option(help: ArgumentHelp("Make tokens of the last 64 less likely by this factor; 1 is off.", valueName: "factor"))
    var repetitionPenalty: Float = 1
    @Option(parsing: .unconditional, help: ArgumentHelp("Taken once from the score of tokens that the answer already has, -2 to 2.", valueName: "value"))
    var presencePenalty: Float = 0
    @Option(parsing: .unconditional, help: ArgumentHelp("Taken from it for each time the answer has them, -2 to 2.", valueName: "value"))
    var frequencyPenalty: Float = 0
    @Option(help: ArgumentHelp("Equal seeds give equal answers. Default: drawn anew.", valueName: "number"))
    var seed: UInt64?
    @Option(help: ArgumentHelp("The most tokens of an answer. Default: what the context leaves.", valueName: "tokens"))
    var maxTokens: Int?

    var parameters: SamplingParameters {
        var parameters = SamplingParameters()
        parameters.temperature = temperature
        parameters.topK = topK
        parameters.topP = topP
        parameters.minP = minP
        parameters.typicalP = typicalP
        parameters.repetitionPenalty = repetitionPenalty
        parameters.presencePenalty = presencePenalty
        parameters.frequencyPenalty = frequencyPenalty
        parameters.seed = seed
        return parameters
    }

    func validate() throws {
        if let maxTokens, maxTokens < 1 { throw ValidationError("--max-tokens takes a number from 1 up, not \(maxTokens)") }
        do {
            try parameters.check(vocabularySize: .max)
        } catch {
            // The sampler's message begins with the parameter's wire name: `top_p is 2.0; it must be …`
            let name = error.message.prefix { $0 != " " }
            let rest = error.message.dropFirst(name.count)
            throw ValidationError("--\(name.map { $0 == "_" ? "-" : String($0) }.joined())\(rest.last == "." ? rest.dropLast() : rest)")
        }
    }
}
