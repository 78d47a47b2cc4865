import Glibc

/// A POSIX thread with a name that `top`, `perf` and debuggers show.
package struct NamedThread: Sendable {
    /// The kernel cuts a thread's name at this many bytes.
    static let longestName = 15

    private let handle: pthread_t

    private final class Start {
        let name: String
        let niceness: Int32
        let body: @Sendable () -> Void

        init(name: String, niceness: Int32, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.niceness = niceness
            self.body = body
        }
    }

    /// Starts `body` on a new thread. Signals stay with the main thread's mask, so that a loop's signal watcher decides who sees them.
    /// - Parameter niceness: added to the process's own; 0 leaves the scheduling as it is.
    package init(name: String, niceness: Int32 = 0, _ body: @escaping @Sendable () -> Void) {
        let start = Unmanaged.passRetained(Start(name: name, niceness: niceness, body: body))
        var thread = pthread_t()
        let failure = pthread_create(&thread, nil, { argument in
            // The argument is optional in some C libraries and not in others; here it is what `passRetained` made.
            let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
            NamedThread.rename(start.name)
            if start.niceness != 0 {
                // POSIX gives niceness to the process, Linux to the calling thread.
                _ = nice(start.niceness)
            }
            start.body()
            return nil
        }, start.toOpaque())
        // Without its threads nothing of the program works, and there is no caller who could go on.
        precondition(failure == 0, "cannot start the thread \(name): \(String(cString: strerror(failure)))")
        handle = thread
    }

    /// Names the calling thread. Through /proc, because the C function is hidden from Swift behind a feature macro.
    private static func rename(_ name: String) {
        let file = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return }
        let bytes = Array(name.utf8.prefix(longestName))
        _ = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
        close(file)
    }

    /// Waits for the end of the thread. Once for each thread, never on the thread itself.
    package func join() {
        pthread_join(handle, nil)
    }

    package func detach() {
        pthread_detach(handle)
    }

    package var isCurrent: Bool {
        pthread_equal(handle, pthread_self()) != 0
    }

    /// Identifies the calling thread as long as it lives; never 0 on Linux.
    package static var currentID: UInt {
        UInt(pthread_self())
    }
}
