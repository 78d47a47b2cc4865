import InstructionStore
import JSON

/// A job's metrics as comma-separated values, one line a step: OpenAI's columns first, then more of them.
package enum MetricsTable {
    static let columns = [
        "step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy", "learning_rate", "gradient_norm", "train_reward_margin",
        "valid_reward_margin",
    ]

    /// - Parameter events: of one job, oldest first; others than metrics are skipped.
    package static func bytes(of events: [JobEventRow]) -> [UInt8] {
        var lines: [Int: [String: Double]] = [:]
        for event in events where event.type == JobEvent.Kind.metrics.rawValue {
            guard let data = event.data.flatMap({ try? JSONValue(parsing: Array($0.utf8)) }), let step = data["step"]?.integer else { continue }
            func take(_ member: String, as column: String) {
                if let value = data[member]?.number { lines[Int(step), default: [:]][column] = value }
            }
            take("train_loss", as: "train_loss")
            take("train_mean_token_accuracy", as: "train_accuracy")
            take("full_valid_loss", as: "valid_loss")
            take("full_valid_mean_token_accuracy", as: "valid_mean_token_accuracy")
            take("learning_rate", as: "learning_rate")
            take("gradient_norm", as: "gradient_norm")
            take("train_reward_margin", as: "train_reward_margin")
            take("full_valid_reward_margin", as: "valid_reward_margin")
        }
        var text = columns.joined(separator: ",") + "\n"
        for (step, values) in lines.sorted(by: { $0.key < $1.key }) {
            text += ([String(step)] + columns.dropFirst().map { values[$0].map { $0.description } ?? "" }).joined(separator: ",") + "\n"
        }
        return Array(text.utf8)
    }
}
