import Glibc

/// The operating system's text for an error number.
package func systemReason(_ number: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    _ = strerror_r(number, &buffer, buffer.count)
    return buffer.withUnsafeBufferPointer { text in text.baseAddress.map { String(cString: $0) } ?? "error \(number)" }
}

/// Whether an error number says that there is no room, on the disk or in the user's quota.
package func isStorageFull(_ number: Int32) -> Bool {
    number == ENOSPC || number == EDQUOT
}
