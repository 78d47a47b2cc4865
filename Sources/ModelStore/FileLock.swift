import Glibc

/// The right to pull one model, held between processes with `flock` on a file, which the kernel lets go of when its holder dies.
///
/// The file is removed at the end. That is safe because whoever gets the lock checks that the file is still the one at its path.
struct FileLock: ~Copyable {
    private let path: String
    let descriptor: Int32

    /// Waits for the lock, calling `waiting` about five times a second meanwhile.
    init(path: String, waiting: () -> Void) throws(ModelStoreError) {
        while true {
            let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
            guard descriptor >= 0 else { throw ModelStoreError(code: .storage, message: "\(path): cannot be created: \(systemReason(errno))") }
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
                guard errno == EWOULDBLOCK || errno == EINTR else {
                    let reason = systemReason(errno)
                    close(descriptor)
                    throw ModelStoreError(code: .storage, message: "\(path): cannot be locked: \(reason)")
                }
                waiting()
                usleep(200_000)
            }
            var held = stat()
            var present = stat()
            if fstat(descriptor, &held) == 0, stat(path, &present) == 0, held.st_dev == present.st_dev, held.st_ino == present.st_ino {
                self.path = path
                self.descriptor = descriptor
                return
            }
            // The holder before us removed this file: somebody else may hold a new one.
            close(descriptor)
        }
    }

    deinit {
        unlink(path)
        close(descriptor)
    }
}
