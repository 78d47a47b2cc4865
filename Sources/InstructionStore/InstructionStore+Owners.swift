import GRDB

extension InstructionStore {
    /// The owner of everything on a server without keys; it exists from the start.
    public static let localOwner = "local"

    /// `[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}`: an owner's name is the name of a folder too.
    public static func isValidOwner(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count) && name.utf8.first != UInt8(ascii: ".")
            && name.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
                    UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }

    /// Makes an owner; one that exists is left as it is.
    public func addOwner(_ name: String, at time: Int) throws(InstructionStoreError) {
        guard Self.isValidOwner(name) else {
            throw InstructionStoreError(
                .invalidArgument, "an owner's name: found \(name.utf8.count) bytes, expected 1 to 64 of A-Z a-z 0-9 . _ - that do not begin with a dot")
        }
        try write { db in
            try db.execute(sql: "INSERT INTO owners (name, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING", arguments: [name, time])
        }
    }

    /// In alphabetical order.
    public func owners() throws(InstructionStoreError) -> [String] {
        try read { db in try String.fetchAll(db, sql: "SELECT name FROM owners ORDER BY name") }
    }
}
