import JSON
import Testing
import Training

/// Files as they should not be: what is reported, on which line, and what is left.
@Suite struct DatasetProblemTests {
    private static let good = #"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#

    private func row(_ messages: String, _ rest: String = "") -> String { #"{"messages":[\#(messages)]\#(rest)}"# }

    /// A bad row between two good ones costs nothing but itself.
    private func problem(_ bad: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let set = try ReadDataset(Self.good + "\n" + bad + "\n" + Self.good)
        #expect(set.report.exampleCount == 2, sourceLocation: sourceLocation)
        #expect(set.trained == ["b<|im_end|>", "b<|im_end|>"], sourceLocation: sourceLocation)
        #expect(set.report.problemCount == 1, sourceLocation: sourceLocation)
        #expect(set.report.problems.map(\.line) == [2], sourceLocation: sourceLocation)
        return set.report.problems.first?.message ?? ""
    }

    // MARK: Rows

    @Test func messages() throws {
        let user = #"{"role":"user","content":"a"}"#
        #expect(try problem(row("")) == "'messages' is empty, expected at least one message")
        #expect(try problem(#"{"messages":"secret"}"#) == "'messages' is a string, expected an array of messages")
        #expect(try problem(row(user)) == "there is no assistant message, expected at least one to train")
        #expect(
            try problem(row(#"\#(user),{"role":"secret","content":"b"}"#))
                == "'messages[1].role' is none of the known roles, expected one of system, developer, user, assistant, tool")
        #expect(try problem(row(#"\#(user),{"content":"b"}"#)).hasPrefix("'messages[1].role' is missing"))
        #expect(try problem(row(#"\#(user),{"role":"assistant","content":" \n"}"#)).hasPrefix("the answer in message 1 (counted from 0) is empty"))
        #expect(try problem(row(#"\#(user),{"role":"assistant","content":null}"#)) == "'messages[1].content' is missing, expected a string")
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","content":7}"#))
                == "'messages[1].content' is an integer, expected a string or an array of text parts")
        #expect(
            try problem(row(#"{"role":"user","content":[{"type":"image_url","image_url":{}}]},{"role":"assistant","content":"b"}"#)).hasPrefix(
                "'messages[0].content[0]' is not a text part"))
        #expect(try problem(row(#"\#(user),"secret""#)) == "'messages[1]' is a string, expected an object with role and content")
        #expect(
            try problem(row(#"{"role":"user","content":"refuse me"},{"role":"assistant","content":"b"}"#))
                == "the model's chat template refuses this conversation: Not that")
    }

    @Test func weights() throws {
        let user = #"{"role":"user","content":"a"}"#
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","content":"b","weight":2}"#))
                == "'messages[1].weight' is neither 0 nor 1, expected 0 (read only) or 1 (trained)")
        #expect(try problem(row(#"\#(user),{"role":"assistant","content":"b","weight":"1"}"#)).hasPrefix("'messages[1].weight' is neither 0 nor 1"))
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","content":"b","weight":0}"#))
                == "every assistant message has weight 0, expected at least one to train")
        #expect(try problem(row(#"{"role":"user","content":"a","weight":1},{"role":"assistant","content":"b"}"#)).hasPrefix("'messages[0]' has a weight of 1"))
    }

    @Test func toolCalls() throws {
        let user = #"{"role":"user","content":"a"}"#
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}"#)).hasPrefix(
                "'messages[1].tool_calls[0]' has no function.name"))
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}"#)).hasPrefix(
                "'messages[1].tool_calls[0].function.arguments' is missing"))
        #expect(
            try problem(row(#"{"role":"user","content":"a","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},{"role":"assistant","content":"b"}"#))
                == "'messages[0]' has tool calls and is not the assistant's")
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","content":"b"}"#, #","tools":[{"type":"function"}]"#)).hasPrefix("'tools[0]' has no function.name"))
        #expect(
            try problem(row(#"\#(user),{"role":"assistant","content":"b"}"#, #","tools":"nonsense""#))
                == "'tools' is a string that is no JSON, expected an array of tools")
    }

    @Test func ratedAnswersAreNotPairs() throws {
        #expect(
            try problem(row(#"{"role":"user","content":"a"},{"role":"assistant","content":"b"}"#, #","label":false"#)).hasPrefix(
                "'label' rates the answer by itself"))
    }

    @Test func otherFormats() throws {
        func problem(_ rows: String...) throws -> [String] { try ReadDataset(rows.joined(separator: "\n")).problems }
        #expect(
            try problem(#"{"conversations":[{"from":"human","value":"a"},{"from":"robot","value":"b"}]}"#) == [
                "1: 'conversations[1].from' is none of the known speakers, expected one of human, user, gpt, assistant, system, observation, tool, function_call"
            ])
        #expect(
            try problem(#"{"conversations":[{"from":"human","value":"a"},{"from":"function_call","value":"add(1)"}]}"#).first?.hasPrefix(
                "1: 'conversations[1].value' is no JSON") == true)
        #expect(try problem(#"{"instruction":"","input":"","output":"x"}"#) == ["1: 'instruction' and 'input' are both empty, expected the question"])
        #expect(try problem(#"{"instruction":"a","output":" "}"#) == ["1: 'output' is empty, expected the answer to train"])
        #expect(try problem(#"{"instruction":"a","output":"b","history":[["c"]]}"#).first?.hasPrefix("1: 'history[0]' is not a pair of strings") == true)
        #expect(try problem(#"{"prompt":"a","completion":""}"#) == ["1: 'completion' is empty, expected the text to train"])
        #expect(try problem(#"{"prompt":"a","completion":[]}"#).first?.hasPrefix("1: 'completion' is an array of messages") == true)
        #expect(try problem(#"{"prompt":"a","chosen":"b","rejected":"b"}"#) == ["1: the two answers are the same, expected a better and a worse one"])
        #expect(try problem(#"{"prompt":"a","chosen":"b","rejected":[]}"#).first?.hasPrefix("1: one of 'chosen' and 'rejected' is a string") == true)
        #expect(
            try problem(
                #"{"prompt":"a","chosen":[{"role":"user","content":"x"},{"role":"assistant","content":"b"}],"rejected":[{"role":"user","content":"x"},{"role":"assistant","content":"c"}]}"#
            ).first?.hasPrefix("1: 'chosen' and 'rejected' begin with other messages than 'prompt'") == true)
        #expect(
            try problem(#"{"input":{"messages":[{"role":"user","content":"x"}]},"preferred_output":[{"role":"assistant","content":"b"}]}"#) == [
                "1: 'non_preferred_output' is missing, expected an array with the worse answer"
            ])
    }

    @Test func twoFormatsInOneFile() throws {
        #expect(
            try problem(#"{"prompt":"a","completion":"b"}"#)
                == "the row is in the format completion ('prompt' and 'completion'), expected chat ('messages') as the rows before it; put it into a file of its own"
        )
        #expect(try problem(#"{"text":"secret"}"#) == "the row has not the members of the format chat, expected 'messages'")
    }

    // MARK: Bytes

    @Test func brokenLines() throws {
        #expect(try problem(#"{"messages":[{"role":"user","content":"a"},]}"#).hasPrefix("the row is not valid JSON: at its byte 43, expected a value"))
        #expect(try problem(#"{"messages":"#).hasPrefix("the row is not valid JSON"))
        #expect(try problem("[1]") == "the row is an array, expected an object")
        #expect(try problem(#"{"messages":[],"messages":[]}"#).hasPrefix("the row is not valid JSON: at its byte 15, an object has the same key twice"))
        #expect(try problem(String(repeating: "[", count: 100_000)).hasPrefix("the row is not valid JSON"))
        #expect(try problem(#"{"messages":""# + "\0" + #""}"#).hasPrefix("the row is not valid JSON"))
        #expect(
            try problem(#"{"messages":""# + String(repeating: "x", count: 20 << 20) + #""}"#)
                == "the row has \((20 << 20) + 15) bytes, expected at most 4194304; split it")
        let set = try ReadDataset(Array(Self.good.utf8) + [10] + Array(#"{"messages":""#.utf8) + [0xC3, 0x28] + Array("\"}\n".utf8))
        #expect(set.report.exampleCount == 1)
        #expect(set.problems.first?.contains("not UTF-8") == true)
    }

    @Test func marksLineEndsAndBlankLines() throws {
        let set = try ReadDataset("\u{FEFF}\r\n" + Self.good + "\r\n\r\n  \r\n" + Self.good + "\r\nnonsense")
        #expect(set.report.container == .jsonl)
        #expect(set.report.exampleCount == 2)
        #expect(set.report.problems.map(\.line) == [6])
    }

    @Test func aDamagedFirstLineHidesNothing() throws {
        let set = try ReadDataset("nonsense\n" + Self.good)
        #expect(set.report.exampleCount == 1)
        #expect(set.report.problems.map(\.line) == [1])
    }

    @Test func escapedZeroIsText() throws {
        let set = try ReadDataset(#"{"prompt":"a\u0000","completion":"b"}"#)
        #expect(set.supervised.map(\.tokens) == [[97, 0, 98, ByteEncoder.end]])
    }

    @Test func theFirstHundredProblemsAreListed() throws {
        let set = try ReadDataset(Self.good + "\n" + String(repeating: "{}\n", count: 250))
        #expect(set.report.problemCount == 250)
        #expect(set.report.problems.map(\.line) == Array(2...101))
    }

    // MARK: Arrays

    @Test func arraysNameTheLineOfARow() throws {
        let set = try ReadDataset("[\n\(Self.good),\n\n  {\"messages\":\n []},\n7, \"x\\\"]\",\n\(Self.good)]\n")
        #expect(set.report.container == .json)
        #expect(set.report.exampleCount == 2)
        #expect(
            set.problems == [
                "4: 'messages' is empty, expected at least one message", "6: the row is an integer, expected an object",
                "6: the row is a string, expected an object",
            ])
    }

    @Test func brokenArrays() throws {
        func problems(_ text: String) throws -> [String] {
            let set = try ReadDataset(text)
            #expect(set.report.exampleCount == 1)
            return set.problems
        }
        #expect(try problems("[\(Self.good),\n]") == ["2: there is a ',' behind the last row, expected ']'"])
        #expect(try problems("[\(Self.good)\n") == ["2: the array does not end, expected ']' behind its last row"])
        #expect(try problems("[\(Self.good),\n") == ["2: the array does not end, expected ']' behind its last row"])
        #expect(try problems("[\(Self.good)\n\(Self.good)]") == ["2: there is no ',' between two rows; this and what follows is not read"])
        #expect(try problems("[\(Self.good)]\nx") == ["2: there is text behind the array's end, which is not read"])
        #expect(
            try problems("[\(Self.good),\n{\"messages\":[\"]") == [
                "2: the row does not end: a bracket or a quote is not closed; this and what follows is not read"
            ])
        #expect(try problems("[\(Self.good),\n{\"messages\"]}]").map { $0.prefix(14) } == ["2: the row is ", "2: there is no"])
    }

    // MARK: Tables

    @Test func brokenTables() throws {
        func problems(_ text: String) throws -> [String] {
            let set = try ReadDataset("prompt,completion\n" + text)
            #expect(set.trained == ["b<|im_end|>"])
            return set.problems
        }
        #expect(try problems("a,b\nc\n") == ["3: the row has 1 fields, expected 2 as the first line names; put quotes around a field with commas"])
        #expect(
            try problems("\"x\ny\"z,w\na,b") == [
                "2: there is text behind the closing quote of field 1, expected a comma; double a quote that belongs to the text"
            ])
        #expect(try problems("a,b\n\"c,\nd") == ["3: the quote that opens a field on line 3 is never closed; this and what follows is not read"])
        #expect(try problems("c\0,d\na,b") == ["2: the column 'prompt' holds a zero byte, expected text"])
        #expect(try problems("c,\na,b") == ["2: 'completion' is empty, expected the text to train"])
        #expect(
            try problems("c,\"" + String(repeating: "x\n", count: 3 << 20) + "\"\na,b").first?.hasPrefix(
                "2: the row has 6291460 bytes, expected at most 4194304") == true)
    }

    @Test func aTableMustNameItsColumns() throws {
        func error(_ text: String) -> String {
            do {
                _ = try ReadDataset(text)
                return ""
            } catch { return "\(error)" }
        }
        #expect(error("text,category\na,b").contains("its columns are named text, category; expected columns named prompt,completion or"))
        #expect(error("prompt;completion\na;b").contains("divided by semicolons"))
        #expect(error("prompt\tcompletion\na\tb").contains("divided by tabs"))
        #expect(error("prompt,prompt,completion\n").contains("names the column 'prompt' twice"))
        let secret = error("My card, it was stolen! Help.\nx,y")
        #expect(secret.contains("no line of names"))
        #expect(!secret.contains("stolen"))
    }

    // MARK: Files of no format

    @Test(arguments: ["", " \r\n\t", "[]", "{}", #"{"text":"a"}"#, "[1,2]", "nonsense", #"{"instruction":"a","response":"b"}"#])
    func filesOfNoFormat(_ text: String) {
        #expect(throws: DatasetError.self) { try ReadDataset(text) }
    }

    @Test func anUnknownFileSaysWhatWouldDo() throws {
        let error = #expect(throws: DatasetError.self) { try ReadDataset(#"{"instruction":"secret","response":"b","odd key!":1}"#) }
        let message = error?.message ?? ""
        #expect(message.contains("its first row has the members instruction, response."))
        for format in DatasetFormat.allCases { #expect(message.contains("\(format.rawValue): '")) }
        #expect(!message.contains("secret"))
        let wide = #expect(throws: DatasetError.self) { try ReadDataset([0xFF, 0xFE, 0x7B, 0x00]) }
        #expect(wide?.message.contains("UTF-8") == true)
    }

    @Test func aKnownFormatWithoutAUsableRowIsADataset() throws {
        let set = try ReadDataset(#"{"messages":[]}"#)
        #expect(set.report.exampleCount == 0)
        #expect(set.supervised.isEmpty)
        #expect(set.report.problemCount == 1)
    }

    // MARK: The report

    @Test func theReportAsJSON() throws {
        let set = try ReadDataset(Self.good + "\n{}")
        #expect(
            String(decoding: JSONValue.object(set.report.json).serialized(), as: UTF8.self)
                == #"{"format":"chat","container":"jsonl","examples":1,"tokens":\#(set.report.tokenCount),"trained_tokens":2,"truncated":0,"longest":\#(set.report.tokenCount),"#
                + #""untrained_answers":0,"bad_lines":1,"problems":[{"line":2,"message":"the row has not the members of the format chat, expected 'messages'"}]}"#
        )
    }

    @Test func answersThatOnlyGiveContextAreCounted() throws {
        let set = try ReadDataset(row(#"{"role":"assistant","content":"Welcome"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}"#))
        #expect(set.trained == ["b<|im_end|>"])
        #expect(set.report.untrainedAnswerCount == 1)
        let none = try ReadDataset(row(#"{"role":"assistant","content":"Welcome"}"#))
        #expect(
            none.problems == ["1: no answer can be trained: of message 0 (counted from 0), it is the first message, and a model is only asked to answer one"])
    }

    /// Whatever is cut off or changed, the reader ends and keeps its books.
    @Test func mutilatedFilesAreSurvived() throws {
        let rows = [
            Self.good, #"{"prompt":"q","chosen":"a","rejected":"b"}"#, "[\(Self.good),\(Self.good)]", "prompt,completion\n\"a\"\"\n\",b\nc,d\n",
            #"{"conversations":[{"from":"human","value":"1"},{"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{}}"}],"tools":"[]"}"#,
        ]
        var state: UInt64 = 7
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let odd: [UInt8] = Array("{}[]\",:\n\r\\0\u{7F}".utf8) + [0x00, 0xC3, 0xFF]
        for round in 0..<600 {
            var bytes = Array((rows[round % rows.count] + "\n" + rows[round % rows.count]).utf8)
            for _ in 0...random(4) {
                switch random(3) {
                case 0: bytes[random(bytes.count)] = odd[random(odd.count)]
                case 1: bytes.insert(odd[random(odd.count)], at: random(bytes.count))
                default: bytes.removeLast(random(bytes.count - 1) / 4)
                }
            }
            guard let set = try? ReadDataset(bytes, maximumLength: 64) else { continue }
            #expect(set.report.problems.count == min(set.report.problemCount, DatasetReport.maximumProblems))
            #expect(set.dataset.examples.count == set.report.exampleCount)
            for example in set.supervised { #expect(example.tokens.count <= 64 && example.trainedCount > 0) }
        }
    }

    @Test func interruption() throws {
        let reader = DatasetReader(encoder: try ByteEncoder.chat(), maximumLength: 64)
        let bytes = Array(#"{"prompt":"a","completion":"b"}"#.utf8), interruption = Interruption()
        #expect(try reader.read(bytes, interruption: interruption).examples.count == 1)
        interruption.request()
        #expect(throws: DatasetError.interrupted) { try reader.read(bytes, interruption: interruption) }
    }
}
