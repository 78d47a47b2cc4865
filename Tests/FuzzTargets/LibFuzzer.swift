import FoundationEssentials
import Glibc

/// The target that `GRAFT_FUZZ_TARGET` names.
private let target: FuzzTarget = {
    let name = ProcessInfo.processInfo.environment["GRAFT_FUZZ_TARGET"] ?? ""
    guard let target = FuzzTarget(rawValue: name) else {
        fatalError("GRAFT_FUZZ_TARGET is '\(name)', expected one of \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return target
}()

/// The most processor time of one input, in nanoseconds. libFuzzer's own limit is by the clock, which says little on a busy machine.
private let mostNanoseconds: UInt64 = 1_000_000_000
/// What an input may take in memory beyond its own size.
private let memoryAllowance = 64 << 20

/// libFuzzer's entry point (llvm.org/docs/LibFuzzer.html): called once for each input, always on one thread.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    MemoryMeter.begin()
    let start = processorTime()
    do throws(FuzzFinding) {
        try target.run(input)
    } catch {
        fatalError("finding: \(error)")
    }
    let nanoseconds = processorTime() - start
    if nanoseconds > mostNanoseconds { fatalError("finding: the input took \(nanoseconds / 1_000_000) ms of processor time") }
    if let most = MemoryMeter.most, most > count + memoryAllowance { fatalError("finding: \(count) bytes of input took \(most) bytes of memory") }
    return 0
}

private func processorTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Counts what is allocated while an input is handled, through the sanitizer's hooks (sanitizer/allocator_interface.h); without a sanitizer, nothing.
private enum MemoryMeter {
    /// Bytes allocated and not freed since `begin`, and the most there were of them. One thread uses these.
    nonisolated(unsafe) private static let counts: UnsafeMutablePointer<(now: Int, most: Int)> = {
        let counts = UnsafeMutablePointer<(now: Int, most: Int)>.allocate(capacity: 1)
        counts.initialize(to: (0, 0))
        return counts
    }()

    private typealias SizeOf = @convention(c) (UnsafeRawPointer?) -> Int
    private typealias Install = @convention(c) (@convention(c) (UnsafeRawPointer?, Int) -> Void, @convention(c) (UnsafeRawPointer?) -> Void) -> CInt

    nonisolated(unsafe) private static var sizeOf: SizeOf?

    private static let isInstalled: Bool = {
        guard let install = dlsym(nil, "__sanitizer_install_malloc_and_free_hooks"), let size = dlsym(nil, "__sanitizer_get_allocated_size") else { return false }
        _ = counts.pointee
        sizeOf = unsafeBitCast(size, to: SizeOf.self)
        return unsafeBitCast(install, to: Install.self)(
            { _, size in
                counts.pointee.now += size
                counts.pointee.most = max(counts.pointee.most, counts.pointee.now)
            },
            { address in
                if let address, let sizeOf { counts.pointee.now -= sizeOf(address) }
            }) != 0
    }()

    static func begin() {
        if isInstalled { counts.pointee = (0, 0) }
    }

    static var most: Int? { isInstalled ? counts.pointee.most : nil }
}
