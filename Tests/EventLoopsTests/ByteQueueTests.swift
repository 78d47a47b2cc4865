import EventLoops
import Testing

@Suite struct ByteQueueTests {
    @Test func bytesComeOutAsTheyWentIn() {
        var queue = ByteQueue()
        var model: [UInt8] = []
        var next: UInt8 = 0
        var state: UInt64 = 3
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        for _ in 0..<2000 {
            if random(3) > 0 {
                let piece = (0..<random(random(10) == 0 ? 50_000 : 300)).map { _ -> UInt8 in
                    next &+= 1
                    return next
                }
                queue.append(piece)
                model += piece
            } else {
                let count = random(model.count + 1)
                queue.removeFirst(count)
                model.removeFirst(count)
            }
            #expect(queue.count == model.count)
            if random(50) == 0 { #expect(queue.contents() == model) }
        }
        #expect(queue.contents() == model)
        queue.removeAll()
        #expect(queue.count == 0)
        #expect(queue.contents().isEmpty)
    }
}
