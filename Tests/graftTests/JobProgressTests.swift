import JSON
import Testing
import graft

struct JobProgressTests {
    static func step(_ step: Int, of count: Int = 20, _ more: JSONObject = JSONObject()) -> JSONValue {
        var data: JSONObject = [
            "step": .integer(Int64(step)), "total_steps": .integer(Int64(count)), "train_loss": 0.41249, "tokens_per_second": 1819.6, "seconds_left": 41.2,
        ]
        for (key, value) in more { data[key] = value }
        return ["type": "metrics", "level": "info", "message": "Step", "data": .object(data)]
    }

    @Test func aStepIsShownByTheBar() {
        var progress = JobProgress()
        #expect(progress.line() == nil)
        #expect(progress.take(["type": "message", "level": "info", "message": "Fine-tuning job started"]) == "Fine-tuning job started")
        #expect(progress.line() == nil)
        #expect(progress.take(Self.step(10)) == nil)
        #expect(progress.line(width: 100) == "━━━━━━━━━━━━────────────   50%  step 10/20  loss 0.412  1820 tokens/s  0:42 left")
    }

    @Test func anEvaluationIsALineAndStaysOnTheBar() {
        var progress = JobProgress()
        _ = progress.take(Self.step(10))
        let evaluation: JSONValue = [
            "type": "metrics", "level": "info", "message": "Step 10/20: validation loss=0.39", "data": ["step": 10, "total_steps": 20, "full_valid_loss": 0.388],
        ]
        #expect(progress.take(evaluation) == "Step 10/20: validation loss=0.39")
        #expect(progress.line(width: 100)?.contains("loss 0.412  valid 0.388  1820") == true)
    }

    @Test func warningsSayWhatTheyAre() {
        var progress = JobProgress()
        #expect(progress.take(["type": "message", "level": "warn", "message": "The server's disk is full"]) == "warn: The server's disk is full")
    }

    @Test func aLogIsToldEachTenth() {
        var progress = JobProgress()
        var told: [Int] = []
        for step in 1...40 {
            _ = progress.take(Self.step(step, of: 40))
            if progress.isDue() { told.append(step) }
        }
        #expect(told == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40])
    }

    @Test func aNarrowTerminalGetsLess() {
        var progress = JobProgress()
        _ = progress.take(Self.step(20))
        for width in 20...120 { #expect(progress.line(width: width)!.count <= width) }
        #expect(progress.line(width: 79) == "━━━━━━━━━━━━━━━━━━━━━━━  100%  step 20/20  loss 0.412  1820 tokens/s  0:42 left")
        #expect(progress.line(width: 40) == "━━━━━━━━  100%  step 20/20  loss 0.412")
    }

    @Test func numbers() {
        #expect(JobProgress.short(0.0004) == "0.000")
        #expect(JobProgress.short(-0.0004) == "0.000")
        #expect(JobProgress.short(-1.2345) == "-1.235" || JobProgress.short(-1.2345) == "-1.234")
        #expect(JobProgress.short(12.05) == "12.050")
        #expect(JobProgress.short(.infinity) == "inf")
    }
}
