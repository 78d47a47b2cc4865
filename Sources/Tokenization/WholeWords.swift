import Synchronization

/// Remembers which tokens a word of the same bytes merges into, so that the words a text is mostly made of cost one look-up.
///
/// That a word is spelled like a token does not prove that merging ends there; it is found out once per token, at its first use.
/// Two threads that find it out at once write the same answer, so the order of these loads and stores does not matter.
final class WholeWords: @unchecked Sendable {
    // Sendable because the elements are atomics in memory that lives as long as this object.
    private let states: UnsafeMutablePointer<Atomic<UInt8>>
    private let count: Int

    enum State: UInt8 {
        case unknown = 0
        case merges = 1
        case staysSplit = 2
    }

    init(tokenCount: Int) {
        count = tokenCount
        states = .allocate(capacity: max(1, tokenCount))
        for index in 0..<tokenCount { (states + index).initialize(to: Atomic(0)) }
    }

    deinit {
        states.deinitialize(count: count)
        states.deallocate()
    }

    @inline(__always)
    subscript(id: Int32) -> State {
        get { State(rawValue: states[Int(id)].load(ordering: .relaxed)) ?? .unknown }
        set { states[Int(id)].store(newValue.rawValue, ordering: .relaxed) }
    }
}
