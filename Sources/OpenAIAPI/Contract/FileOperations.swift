import InstructionStore
import JSON

/// The description of the routes about files.
enum FileOperations {
    private static let id = Operation.Parameter.id("The file's id.", example: "file-0123456789abcdef")

    static let create = Operation(
        id: "createFile", tag: .files, summary: "Upload a file",
        text:
            "A file for fine-tuning is looked into at once. Content of no known format is refused; single bad lines make the file's status `error` and are listed.",
        body: Operation.Body(
            mediaType: "multipart/form-data",
            schema: .form(
                required: [("file", .bytes("The content. The part's filename is kept as a name for people.")), ("purpose", .word(FilePurpose.uploadable))],
                optional: [
                    ("expires_after[anchor]", .word(["created_at"], "Together with the seconds.")),
                    ("expires_after[seconds]", .integer("After which the file is removed.", in: 3600...2_592_000)),
                ])),
        answer: .json("The file, on disk.", .named("File"), headers: ["graft-ignored-parameters"]), refusals: [404, 409, 507])

    static let list = Operation(
        id: "listFiles", tag: .files, summary: "List files",
        parameters: [
            Operation.Parameter(name: "purpose", text: "Only files of this purpose.", schema: .word(FilePurpose.known)), .limit(1...10_000, otherwise: 10_000),
            .order(otherwise: "desc"), .after(prefix: "file-"),
        ],
        answer: .json("A page of files. Their reports come without the list of problems.", .list(of: .named("File"), cursors: .string())), refusals: [404])

    static let retrieve = Operation(
        id: "retrieveFile", tag: .files, summary: "Look at a file", parameters: [id], answer: .json("The file.", .named("File")), refusals: [404])

    static let content = Operation(
        id: "downloadFile", tag: .files, summary: "Get a file's content", parameters: [id],
        answer: Operation.Answer(
            text: "The content, as it came.", contents: [("application/octet-stream", .bytes("The content."))], headers: ["content-disposition"]),
        refusals: [404])

    static let delete = Operation(
        id: "deleteFile", tag: .files, summary: "Delete a file", parameters: [id], answer: .json("It is gone.", .named("Deleted")), refusals: [404, 409, 507])

    static let schemas: [Schema.Member] = [
        (
            "File",
            .answer(
                "",
                [
                    ("id", .string()), ("object", .constant("file")), ("bytes", .integer(in: 0 ... .max)), ("created_at", .integer("Seconds since 1970.")),
                    ("expires_at", Schema.integer("Seconds since 1970.").orNull), ("filename", .string()), ("purpose", .word(FilePurpose.known)),
                    ("status", .word(StoredFile.Status.allCases.map(\.rawValue), "`error`: not usable for training.")),
                    ("status_details", Schema.string("Why it is not usable.").orNull),
                ],
                optional: [
                    ("graft_report", .named("FileReport")),
                    (
                        "graft_dataset",
                        .answer(
                            "Of a file that was made of kept completions.",
                            [
                                ("format", .word(TrainingLine.Format.allCases.map(\.rawValue))), ("examples", .integer()),
                                (
                                    "skipped",
                                    .answer("Completions that make no example, by reason.", TrainingLine.Omission.allCases.map { ($0.rawValue, .integer()) })
                                ),
                            ])
                    ),
                ])
        ),
        (
            "FileReport",
            .answer(
                "What the look into a file for fine-tuning has found.",
                [("format", .string()), ("examples", .integer("Rows that can be used.")), ("bad_lines", .integer("Rows that cannot."))],
                optional: [
                    ("container", .string()), ("tokens", .integer()), ("trained_tokens", .integer()),
                    ("truncated", .integer("Rows that are too long and lose their end.")),
                    ("longest", .integer("Tokens of the longest row.")), ("untrained_answers", .integer()),
                    ("problems", .array(of: .answer("", [("line", .integer(in: 1 ... .max)), ("message", .string())]), "The first bad lines; not in lists.")),
                ])
        ),
    ]
}
