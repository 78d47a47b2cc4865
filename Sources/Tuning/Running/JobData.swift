import Adapters
import InstructionStore
import Modeling
import Training

/// Turns files into what a trainer learns from.
package struct JobData: Sendable {
    package var training: Dataset
    package var trainingDigest: String
    package var validation: Dataset?
    package var validationDigest: String?
    package var initial: JobPlan.Initial?
    package var initialPairs: [LowRankPair]?
    /// Rows that were left out, in words; for the job's events.
    package var notes: [String] = []

    /// The trainer's plan: the data parted as the job's plan says.
    package func trainingPlan(_ plan: JobPlan) -> TrainingPlan {
        let (kept, heldOut) = HoldOut.split(training.examples, heldOut: plan.heldOutCount, seed: plan.configuration.seed)
        return TrainingPlan(configuration: plan.configuration, training: kept, validation: validation?.examples ?? heldOut, initial: initialPairs)
    }
}

/// Reads what a job needs: files, examples, the adapter that it continues.
struct JobDataReader: Sendable {
    let files: any FileService
    let adapters: any AdapterService
    let read: DatasetReading

    /// - Throws: `failed` with OpenAI's codes for files that cannot be used; `interrupted`.
    func data(for request: JobRequest, owner: String, maximumLength: Int, interruption: Interruption? = nil) throws(Halt) -> JobData {
        let (training, trainingFile, note) = try dataset(request.trainingFile, request.method, owner, maximumLength, interruption, "training_file")
        var data = JobData(training: training, trainingDigest: trainingFile.digest)
        data.notes = [note].compactMap { $0 }
        if let id = request.validationFile {
            let (validation, file, note) = try dataset(id, request.method, owner, maximumLength, interruption, "validation_file")
            data.validation = validation
            data.validationDigest = file.digest
            if let note { data.notes.append(note) }
        }
        if let name = request.initialAdapter {
            guard let reference = AdapterReference(name), let version = adapters.resolve(reference, owner: owner, stickyKey: nil) else {
                throw .failed("invalid_initial_adapter", "the adapter \(name), which the job continues, is gone; name another", "lora.initial_adapter")
            }
            do throws(AdapterError) {
                data.initialPairs = try adapters.content(of: version).pairs
            } catch {
                switch error.code {
                case .storageFull, .storage, .outOfMemory: throw Halt(error)
                default: throw .failed("invalid_initial_adapter", error.message, "lora.initial_adapter")
                }
            }
            data.initial = JobPlan.Initial(name: version.name, number: version.number, digest: version.digest)
        }
        return data
    }

    private func dataset(
        _ id: String, _ method: JobRequest.Method, _ owner: String, _ maximumLength: Int, _ interruption: Interruption?, _ parameter: String
    ) throws(Halt) -> (Dataset, StoredFile, note: String?) {
        func refused(_ message: String) -> Halt { .failed("invalid_\(parameter)", "\(id): \(message)", parameter) }
        let found: StoredFile?
        do throws(InstructionStoreError) { found = try files.file(id: id, owner: owner) } catch { throw Halt(TuningError(error)) }
        guard let file = found else { throw refused("the file is not there any more, expected one that lasts as long as the job") }
        guard file.purpose == Self.purpose else {
            throw refused("found the purpose '\(file.purpose.prefix(40))', expected '\(Self.purpose)'; upload the file with that purpose")
        }
        guard file.status != .error else { throw refused("the file has lines that cannot be used; GET the file to see which, and upload a better one") }
        let bytes: [UInt8]
        do throws(InstructionStoreError) {
            bytes = try files.contents(of: file)
        } catch {
            guard error.code != .damaged, error.code != .notFound else { throw refused("the file's bytes are not those that were uploaded; upload it again") }
            throw Halt(TuningError(error))
        }
        let dataset: Dataset
        do throws(DatasetError) {
            dataset = try read(bytes, maximumLength, interruption)
        } catch {
            throw error == .interrupted ? .interrupted : refused(error.message)
        }
        let report = dataset.report
        guard dataset.examples.count > 0 else {
            throw refused("no line can be used" + (report.problems.first.map { "; line \($0.line): \($0.message)" } ?? ""))
        }
        switch (dataset.examples, method) {
        case (.supervised, .dpo):
            throw refused(
                "found the format \(report.format.rawValue), expected pairs of answers for the method dpo; send such a file, or the method supervised")
        case (.preference, .supervised):
            throw refused("found pairs of answers, expected single ones for the method supervised; send \"method\": {\"type\": \"dpo\"}")
        default: break
        }
        guard report.problemCount > 0 else { return (dataset, file, nil) }
        let words = "\(report.problemCount) of \(report.problemCount + report.exampleCount) rows cannot be used"
            + (report.problems.first.map { "; the first, line \($0.line): \($0.message)" } ?? "")
        // What passed at the upload may have become too long for this job; what nobody looked at must be right.
        guard file.status == .processed else { throw refused(words) }
        return (dataset, file, "\(id): \(words); they are left out")
    }

    static let purpose = "fine-tune"
}
