import Testing
import Tuning

struct JobStateTests {
    private typealias Status = JobState.Status

    private func after(_ happenings: [JobState.Happening]) throws -> JobState {
        var state = JobState()
        for happening in happenings { state = try state.after(happening) }
        return state
    }

    @Test func theUsualLife() throws {
        #expect(try after([.validated]).status == .queued)
        #expect(try after([.validated, .started]).status == .running)
        #expect(try after([.validated, .started, .succeeded]) == JobState(status: .succeeded))
        #expect(try after([.failed]) == JobState(status: .failed))
        #expect(try after([.validated, .started, .failed]) == JobState(status: .failed))
        // A process that takes up what another left.
        #expect(try after([.validated, .started, .started]).status == .running)
    }

    @Test func pausing() throws {
        let paused = try after([.validated, .started, .paused])
        #expect(paused == JobState(status: .queued, isPaused: true) && !paused.isReady)
        #expect(try after([.validated, .started, .paused, .resumed]).isReady)
        // Files are looked at all the same.
        let early = try after([.paused, .validated])
        #expect(early == JobState(status: .queued, isPaused: true))
        #expect(throws: TuningError.self) { try paused.after(.started) }
        #expect(throws: TuningError.self) { try paused.after(.paused) }
        #expect(throws: TuningError.self) { try after([.validated, .resumed]) }
        #expect(try after([.validated, .paused, .cancelled]) == JobState(status: .cancelled))
    }

    @Test func waitingForTheDisk() throws {
        let waiting = try after([.validated, .started, .storageLost(.full)])
        #expect(waiting == JobState(status: .queued, storage: .full) && waiting.isReady)
        #expect(try waiting.after(.started) == JobState(status: .running))
        #expect(try after([.storageLost(.failed)]) == JobState(status: .validatingFiles, storage: .failed))
    }

    @Test(arguments: JobState.Status.allCases) func nothingHappensAfterTheEnd(_ status: JobState.Status) {
        let all: [JobState.Happening] = [.validated, .started, .paused, .resumed, .cancelled, .storageLost(.full), .succeeded, .failed]
        let possible = all.filter { (try? JobState(status: status).after($0)) != nil }
        #expect(possible.isEmpty == status.isFinal)
        if status.isFinal {
            #expect(refusal { _ = try JobState(status: status).after(.cancelled) }?.message.contains(status.rawValue) == true)
            #expect(!JobState(status: status).isReady)
        }
    }
}
