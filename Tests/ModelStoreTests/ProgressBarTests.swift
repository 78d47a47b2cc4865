import ModelStore
import Testing

@Suite struct ProgressBarTests {
    @Test func aFullLine() {
        let line = ProgressBar.line(fraction: 0.48, bytes: 47_213_967, total: 98_362_432, bytesPerSecond: 23_600_000, secondsLeft: 2.1)
        #expect(line == "━━━━━━━━━━━─────────────   48%  47.2/98.3 MB  23.6 MB/s  0:03 left")
    }

    @Test func theEnds() {
        #expect(ProgressBar.line(fraction: 0, bytes: 0, total: 1_117_320_768) == "────────────────────────    0%  0.00/1.11 GB")
        #expect(ProgressBar.line(fraction: 1, bytes: 500, total: 500) == "━━━━━━━━━━━━━━━━━━━━━━━━  100%  500/500 B")
        #expect(ProgressBar.line(fraction: 0.9999, bytes: 9_999, total: 10_000) == "━━━━━━━━━━━━━━━━━━━━━━━─   99%   9.9/10.0 kB")
        #expect(ProgressBar.line(fraction: 7, bytes: 1, total: 1) == "━━━━━━━━━━━━━━━━━━━━━━━━  100%  1/1 B")
        #expect(ProgressBar.line(fraction: -1, bytes: 0, total: 1) == "────────────────────────    0%  0/1 B")
    }

    @Test func withoutATotalThereIsNoBar() {
        #expect(ProgressBar.line(fraction: nil, bytes: 12_345_678, total: nil, bytesPerSecond: 999) == "12.3 MB  999 B/s")
    }

    @Test func timesAreReadable() {
        func tail(_ seconds: Double) -> String { ProgressBar.line(fraction: nil, bytes: 0, total: nil, secondsLeft: seconds) }
        #expect(tail(0) == "0 B  0:00 left")
        #expect(tail(59.2) == "0 B  1:00 left")
        #expect(tail(3_725) == "0 B  1:02:05 left")
        #expect(tail(1e12) == "0 B  99:59:59 left")
        #expect(tail(.infinity) == "0 B")
    }

    @Test(arguments: 0...120) func aLineFitsItsTerminal(width: Int) {
        let line = ProgressBar.line(
            fraction: 0.5, bytes: 600_000_000, total: 1_200_000_000, bytesPerSecond: 5_000_000, secondsLeft: 120, note: "part 11 of 22", width: width)
        #expect(line.count <= width)
        if width >= 85 { #expect(line.hasSuffix("5.0 MB/s  2:00 left  part 11 of 22")) }
    }

    @Test func phasesAreNamed() {
        let rate = TransferRate()
        #expect(ProgressBar.line(PullProgress(phase: .downloading, bytes: 5, total: 10, part: 2, partCount: 3), rate: rate).hasSuffix("part 2 of 3"))
        #expect(ProgressBar.line(PullProgress(phase: .downloading, bytes: 5, total: 10), rate: rate).hasSuffix("5/10 B"))
        #expect(ProgressBar.line(PullProgress(phase: .verifying, bytes: 5, total: 10), rate: rate).hasSuffix("verifying"))
        #expect(ProgressBar.line(PullProgress(phase: .checking, bytes: 5, total: 10), rate: rate).hasSuffix("checking what is there"))
        #expect(ProgressBar.line(PullProgress(phase: .waiting, bytes: 0, total: nil), rate: rate).hasSuffix("waiting for another pull of it"))
    }
}

@Suite struct TransferRateTests {
    private let start = ContinuousClock.now

    private func downloading(_ bytes: Int) -> PullProgress { PullProgress(phase: .downloading, bytes: bytes, total: 10_000) }

    @Test func aSteadyTransferHasItsRate() throws {
        var rate = TransferRate()
        #expect(rate.bytesPerSecond == nil)
        for second in 0...20 { rate.record(downloading(second * 100), at: start + .seconds(second)) }
        #expect(abs(try #require(rate.bytesPerSecond) - 100) < 1e-9)
        #expect(abs(try #require(rate.secondsLeft(total: 10_000)) - 80) < 1e-6)
    }

    @Test func theRecentCountsMore() throws {
        var rate = TransferRate()
        for second in 0...10 { rate.record(downloading(second * 100), at: start + .seconds(second)) }
        for second in 1...30 { rate.record(downloading(1000 + second * 300), at: start + .seconds(10 + second)) }
        let bytesPerSecond = try #require(rate.bytesPerSecond)
        #expect(bytesPerSecond > 280 && bytesPerSecond < 300)
    }

    @Test func beginningAgainAndOtherPhasesStartAnew() {
        var rate = TransferRate()
        rate.record(downloading(100), at: start)
        rate.record(downloading(200), at: start + .seconds(1))
        #expect(rate.bytesPerSecond == 100)
        rate.record(downloading(50), at: start + .seconds(2))
        #expect(rate.bytesPerSecond == nil)
        rate.record(downloading(60), at: start + .seconds(3))
        #expect(rate.bytesPerSecond == 10)
        rate.record(PullProgress(phase: .verifying, bytes: 1000, total: nil), at: start + .seconds(4))
        #expect(rate.bytesPerSecond == nil)
        #expect(rate.secondsLeft(total: 1) == nil)
    }

    @Test func twoReportsAtOneTimeAreNoDivisionByZero() {
        var rate = TransferRate()
        rate.record(downloading(100), at: start)
        rate.record(downloading(200), at: start)
        #expect(rate.bytesPerSecond == nil)
    }
}
