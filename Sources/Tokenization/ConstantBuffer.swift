/// A table that is filled once and then read from any thread.
///
/// The tables of a tokenizer are read several times per input byte; this is an array without its bounds checks, retain counts and
/// exclusivity tracking. Indices come from the tables themselves, never from a request.
final class ConstantBuffer<Element: BitwiseCopyable & Sendable>: @unchecked Sendable {
    // Sendable because nothing writes after `init`.
    let base: UnsafePointer<Element>
    let count: Int

    init(_ elements: [Element]) {
        let storage = UnsafeMutablePointer<Element>.allocate(capacity: max(1, elements.count))
        elements.withUnsafeBufferPointer { source in
            if let start = source.baseAddress { storage.initialize(from: start, count: source.count) }
        }
        base = UnsafePointer(storage)
        count = elements.count
    }

    deinit { base.deallocate() }

    @inline(__always)
    subscript(index: Int) -> Element {
        assert(index >= 0 && index < count, "index \(index) outside of a table of \(count)")
        return base[index]
    }
}
