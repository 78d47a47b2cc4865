import Adapters
import InstructionStore
import Training

/// Why the work on a job stops before its end.
package enum Halt: Error, Sendable, Equatable {
    /// Somebody asked for it: a pause, the end of the process.
    case interrupted
    /// The job's row is no longer that of a running job.
    case superseded
    /// The disk took no more; the reason is for the operator.
    case storage(JobState.Storage, String)
    case failed(FineTuningJob.Failure)
    /// For tests: from here on nothing more is done, as if the process had died.
    case died

    static func failed(_ code: String, _ message: String, _ parameter: String? = nil) -> Halt {
        .failed(FineTuningJob.Failure(code: code, message: message, parameter: parameter))
    }

    init(_ error: TuningError) {
        switch error.code {
        case .storageFull: self = .storage(.full, error.message)
        case .storage: self = .storage(.failed, error.message)
        case .conflict: self = .superseded
        case .invalidArgument, .notFound, .tooLarge: self = .failed("invalid_request", error.message, error.parameter)
        }
    }

    init(_ error: AdapterError) {
        switch error.code {
        case .storageFull: self = .storage(.full, error.message)
        case .storage: self = .storage(.failed, error.message)
        case .outOfMemory: self = .failed("out_of_memory", error.message)
        default: self = .failed("publishing_failed", error.message)
        }
    }

    init(_ error: TrainingError) {
        switch error.code {
        case .interrupted: self = .interrupted
        case .invalidArgument: self = .failed("invalid_configuration", error.message)
        case .outOfMemory: self = .failed("out_of_memory", error.message, "lora.max_length")
        case .unavailable: self = .failed("training_unavailable", error.message, "lora.precision")
        case .diverged: self = .failed("diverged", "\(error.message); lower learning_rate_multiplier", "learning_rate_multiplier")
        case .invalidSnapshot: self = .failed("invalid_snapshot", error.message)
        }
    }
}

extension TuningError {
    init(_ error: InstructionStoreError) {
        let code: Code =
            switch error.code {
            case .storageFull: .storageFull
            case .storage, .failed, .damaged, .newerSchema, .busy: .storage
            case .conflict: .conflict
            case .notFound: .notFound
            case .invalidArgument: .invalidArgument
            }
        self.init(code, error.message)
    }
}

/// Runs a call of the store, with its errors as those of jobs.
func stored<Value>(_ body: () throws(InstructionStoreError) -> Value) throws(TuningError) -> Value {
    do {
        return try body()
    } catch {
        throw TuningError(error)
    }
}

/// Runs a call of a job's business, with its errors as reasons to stop.
func halting<Value>(_ body: () throws(TuningError) -> Value) throws(Halt) -> Value {
    do {
        return try body()
    } catch {
        throw Halt(error)
    }
}

func halting<Value>(_ body: () throws(AdapterError) -> Value) throws(Halt) -> Value {
    do {
        return try body()
    } catch {
        throw Halt(error)
    }
}

func halting<Value>(_ body: () throws(TrainingError) -> Value) throws(Halt) -> Value {
    do {
        return try body()
    } catch {
        throw Halt(error)
    }
}
