import Observability
import Testing

@Suite struct MetricsTests {
    @Test func exposition() {
        let registry = MetricsRegistry()
        let requests = registry.counter("a_total", help: "Things\nand \\ more.", labels: ["x", "y"])
        requests.series("1", "say \"hi\"\n\\").increment()
        requests.series("1", "say \"hi\"\n\\").increment(by: 2)
        let gauge = registry.gauge("b", help: "Level.").series()
        gauge.set(2.5)
        gauge.add(-1)
        let histogram = registry.histogram("c_seconds", help: "Time.", labels: ["m"], bounds: [0.5, 1]).series("z")
        for value in [0.5, 0.75, 3] { histogram.observe(value) }
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(
            text == """
                # HELP a_total Things\\nand \\\\ more.
                # TYPE a_total counter
                a_total{x="1",y="say \\"hi\\"\\n\\\\"} 3
                # HELP b Level.
                # TYPE b gauge
                b 1.5
                # HELP c_seconds Time.
                # TYPE c_seconds histogram
                c_seconds_bucket{m="z",le="0.5"} 1
                c_seconds_bucket{m="z",le="1"} 2
                c_seconds_bucket{m="z",le="+Inf"} 3
                c_seconds_sum{m="z"} 4.25
                c_seconds_count{m="z"} 3

                """)
        #expect(histogram.count == 3 && histogram.sum == 4.25)
    }

    @Test func collectorsRunBeforeEachExposition() {
        let registry = MetricsRegistry()
        let total = registry.counter("t_total", help: "T.").series()
        registry.onCollect { total.raise(to: total.value + 5) }
        _ = registry.exposition()
        #expect(String(decoding: registry.exposition(), as: UTF8.self).hasSuffix("t_total 10\n"))
    }

    @Test func countersNeverFall() {
        let counter = MetricsRegistry().counter("t_total", help: "T.").series()
        counter.raise(to: 7)
        counter.raise(to: 3)
        #expect(counter.value == 7)
    }

    @Test func seriesAreBounded() {
        let family = MetricsRegistry().counter("t_total", help: "T.", labels: ["l"])
        for index in 0..<(MetricFamily<Counter>.seriesLimit + 50) { family.series("v\(index)").increment() }
        #expect(family.series("other").value == 50)
        #expect(family.series("v0").value == 1)
    }

    @Test func removedSeriesMakePlace() {
        let registry = MetricsRegistry()
        let family = registry.gauge("g", help: "G.", labels: ["name", "version"])
        for index in 0..<MetricFamily<Gauge>.seriesLimit { family.series("n\(index % 2)", String(index)).set(Double(index)) }
        family.remove { $0[0] == "n1" }
        family.series("new", "1").set(7)
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(!text.contains("n1") && text.contains("g{name=\"n0\",version=\"2\"} 2\n") && text.contains("g{name=\"new\",version=\"1\"} 7\n"))
        // The series that was removed begins anew.
        #expect(family.series("n1", "1").value == 0)
    }

    @Test func whatComesWhileItIsFoundOutStays() {
        let family = MetricsRegistry().counter("t_total", help: "T.", labels: ["name"])
        family.series("old").increment()
        family.series("kept").increment()
        let remove = family.beginRemoval()
        family.series("new").increment()
        remove { $0[0] != "kept" }
        #expect(family.series("new").value == 1 && family.series("kept").value == 1 && family.series("old").value == 0)
        // What had no place of its own is not lost either.
        for index in 0..<MetricFamily<Counter>.seriesLimit { family.series("v\(index)").increment() }
        let overflow = family.series("other").value
        #expect(overflow > 0)
        family.beginRemoval()({ _ in true })
        #expect(family.series("other").value == overflow && family.series("v0").value == 0)
    }

    @Test func manyThreads() async {
        let registry = MetricsRegistry()
        let counter = registry.counter("t_total", help: "T.").series()
        let gauge = registry.gauge("g", help: "G.").series()
        let histogram = registry.histogram("h", help: "H.", bounds: [1]).series()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<1000 {
                        counter.increment()
                        gauge.add(1)
                        histogram.observe(2)
                    }
                }
            }
        }
        #expect(counter.value == 8000 && gauge.value == 8000 && histogram.count == 8000 && histogram.sum == 16000)
    }
}
