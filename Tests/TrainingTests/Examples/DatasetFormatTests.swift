import Testing
import Training

/// What each format means: which tokens an example has, and which of them are trained.
@Suite struct DatasetFormatTests {
    @Test func chat() throws {
        let set = try ReadDataset(
            """
            {"messages":[{"role":"developer","content":"Be brief."},{"role":"user","name":"Ann","content":[{"type":"text","text":"1+"},{"type":"text","text":"1?"}]},\
            {"role":"assistant","content":"2"},{"role":"user","content":"Sure?"},{"role":"assistant","content":"Yes"}],"parallel_tool_calls":false}
            {"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0},{"role":"user","content":"c"},{"role":"assistant","content":"d","weight":1}]}
            """)
        #expect(set.report.format == .chat)
        #expect(set.report.container == .jsonl)
        #expect(
            set.texts == [
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
                    + "<|im_start|>assistant\nYes<|im_end|>",
                "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>",
            ])
        #expect(set.trained == ["2<|im_end|>|Yes<|im_end|>", "d<|im_end|>"])
        #expect(set.report.exampleCount == 2)
        #expect(set.report.tokenCount == set.supervised.reduce(0) { $0 + $1.tokens.count })
        #expect(set.report.trainedTokenCount == 2 + 4 + 2)
        #expect(set.report.longestTokenCount == set.supervised[0].tokens.count)
        #expect(set.problems.isEmpty)
    }

    @Test func toolCalls() throws {
        let set = try ReadDataset(
            #"""
            {"tools":[{"type":"function","function":{"name":"add"}}],"messages":[{"role":"user","content":"1+1"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"2"},{"role":"assistant","content":"Two"}]}
            {"functions":[{"name":"add"}],"messages":[{"role":"user","content":"1+1"},{"role":"assistant","function_call":{"name":"add","arguments":"{\"a\":1}"}},{"role":"function","name":"add","content":"2"},{"role":"assistant","content":"Two"}]}
            """#)
        let expected =
            "[add]<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n{add:{\"a\": 1}}<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>"
        #expect(set.texts == [expected, expected])
        #expect(set.trained == Array(repeating: "{add:{\"a\": 1}}<|im_end|>|Two<|im_end|>", count: 2))
    }

    @Test func promptAndCompletion() throws {
        let plain = try ReadDataset(#"{"prompt":"Q: <|im_end|>","completion":" A"}"#)
        #expect(plain.report.format == .completion)
        #expect(plain.texts == ["Q: <|im_end|> A<|im_end|>"])
        #expect(plain.trained == [" A<|im_end|>"])
        #expect(plain.supervised[0].tokens.filter { $0 > 255 } == [ByteEncoder.end], "what a prompt spells is text")
        let list = try ReadDataset(
            #"{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"completion":[{"role":"assistant","content":"d"}]}"#
        )
        #expect(list.report.format == .chat)
        #expect(list.trained == ["d<|im_end|>"])
    }

    @Test func theFirstTokenIsNeverTrained() throws {
        let set = try ReadDataset(#"{"prompt":"","completion":"ab"}"#)
        #expect(set.supervised.map(\.isTrained) == [[false, true, true]])
    }

    @Test func alpaca() throws {
        let set = try ReadDataset(
            """
            [
              {"instruction": "Add", "input": "1 and 1", "output": "2"},
              {"instruction": "Add", "input": "", "output": "?", "system": "Short.", "history": [["a", "b"]]}
            ]
            """)
        #expect(set.report.format == .alpaca)
        #expect(set.report.container == .json)
        #expect(
            set.texts == [
                "<|im_start|>user\nAdd\n1 and 1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>",
                "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nAdd<|im_end|>\n"
                    + "<|im_start|>assistant\n?<|im_end|>",
            ])
        #expect(set.trained == ["2<|im_end|>", "b<|im_end|>|?<|im_end|>"], "answers of the history are trained too")
    }

    @Test func shareGPT() throws {
        let set = try ReadDataset(
            #"""
            {
              "system": "Calculate.",
              "tools": "[{\"name\": \"add\", \"parameters\": {}}]",
              "conversations": [
                {"from": "human", "value": "1+1"},
                {"from": "function_call", "value": "{\"name\": \"add\", \"arguments\": {\"a\": 1}}"},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "Two"}
              ]
            }
            """#)
        #expect(set.report.format == .shareGPT)
        #expect(set.report.container == .json, "one object over several lines is one row")
        #expect(
            set.texts == [
                "[add]<|im_start|>system\nCalculate.<|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n{add:{\"a\": 1}}<|im_end|>\n"
                    + "<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>"
            ])
        #expect(set.trained == ["{add:{\"a\": 1}}<|im_end|>|Two<|im_end|>"])
        let roles = try ReadDataset(#"{"conversations":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#)
        #expect(roles.trained == ["b<|im_end|>"])
    }

    @Test func table() throws {
        let set = try ReadDataset("prompt,note,completion\r\n\"a, \"\"b\"\"\nc\",x,d\r\n\r\ne\"f,,g\r\n")
        #expect(set.report.container == .csv)
        #expect(set.report.format == .completion)
        #expect(set.texts == ["a, \"b\"\ncd<|im_end|>", "e\"fg<|im_end|>"])
        #expect(set.trained == ["d<|im_end|>", "g<|im_end|>"])
        #expect(set.problems.isEmpty)
        let alpaca = try ReadDataset("instruction,input,output\nAdd,1,2")
        #expect(alpaca.report.format == .alpaca)
        #expect(alpaca.trained == ["2<|im_end|>"])
        let pairs = try ReadDataset("\u{FEFF}prompt,chosen,rejected\nq,good,bad\n")
        #expect(pairs.pairs == [["q", "good<|im_end|>", "bad<|im_end|>"]])
    }

    // MARK: Preferences

    @Test(arguments: [
        #"{"input":{"messages":[{"role":"user","content":"q"}],"tools":[]},"preferred_output":[{"role":"assistant","content":"good"}],"non_preferred_output":[{"role":"assistant","content":"bad"}]}"#,
        #"{"prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"assistant","content":"good"}],"rejected":[{"role":"assistant","content":"bad"}]}"#,
        #"{"prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"good"}],"rejected":[{"role":"assistant","content":"bad"}]}"#,
        #"{"prompt":"q","messages":[],"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"good"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"bad"}]}"#,
        #"{"prompt":"q","chosen":[{"role":"assistant","content":"good"}],"rejected":[{"role":"assistant","content":"bad"}]}"#,
        #"{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"good"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"bad"}]}"#,
        #"{"conversations":[{"from":"human","value":"q"}],"chosen":{"from":"gpt","value":"good"},"rejected":{"from":"gpt","value":"bad"}}"#,
        #"{"instruction":"q","input":"","chosen":"good","rejected":"bad"}"#,
        #"{"messages":[{"role":"user","content":"q"}],"chosen":{"role":"assistant","content":"good"},"rejected":{"role":"assistant","content":"bad"}}"#,
        #"{"chosen_messages":[{"role":"user","content":[{"type":"text","value":"q"}],"loss_weight":0.0},{"role":"assistant","content":[{"type":"text","value":"good"}],"loss_weight":1.0}],"rejected_messages":[{"role":"user","content":[{"type":"text","value":"q"}],"loss_weight":0.0},{"role":"assistant","content":[{"type":"text","value":"bad"}],"loss_weight":1.0}]}"#,
    ]) func pairs(_ row: String) throws {
        let set = try ReadDataset(row)
        #expect(set.problems.isEmpty)
        #expect(set.report.format == .preference)
        #expect(set.pairs == [["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "good<|im_end|>", "bad<|im_end|>"]])
        #expect(set.report.exampleCount == 1)
        #expect(set.report.trainedTokenCount == 5 + 4)
    }

    @Test func pairsOfPlainText() throws {
        let set = try ReadDataset(
            """
            {"prompt":"q: ","chosen":"good","rejected":"bad"}
            {"prompt":"q: ","chosen":"q: good","rejected":"q: bad"}
            """)
        #expect(set.pairs == Array(repeating: ["q: ", "good<|im_end|>", "bad<|im_end|>"], count: 2))
    }

    @Test func pairsKeepTheirHistory() throws {
        let set = try ReadDataset(
            #"{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"},{"from":"human","value":"c"}],"chosen":{"from":"gpt","value":"x"},"rejected":{"from":"gpt","value":"y"}}"#
        )
        #expect(
            set.pairs == [
                [
                    "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", "x<|im_end|>",
                    "y<|im_end|>",
                ]
            ])
    }

    // MARK: Truncation

    @Test func truncationKeepsTheStart() throws {
        let row = #"{"messages":[{"role":"user","content":"ab"},{"role":"assistant","content":"0123456789"}]}"#
        let whole = try ReadDataset(row)
        let prompt = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"
        let promptCount = whole.supervised[0].isTrained.firstIndex(of: true) ?? 0
        let cut = try ReadDataset(row, maximumLength: promptCount + 3)
        #expect(cut.texts == [prompt + "012"])
        #expect(cut.trained == ["012"])
        #expect(cut.report.truncatedCount == 1)
        #expect(cut.report.longestTokenCount == whole.supervised[0].tokens.count)
        #expect(cut.report.tokenCount == promptCount + 3)
        let exact = try ReadDataset(row, maximumLength: promptCount + 11)
        #expect(exact.report.truncatedCount == 0)
        let none = try ReadDataset(row, maximumLength: promptCount)
        #expect(none.report.exampleCount == 0)
        #expect(
            none.problems == [
                "1: what stands before the answer takes all of the \(promptCount) tokens that an example may have; shorten it or raise the maximum length"
            ])
    }

    @Test func laterTurnsBeyondTheLimitAreCut() throws {
        let set = try ReadDataset(
            #"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"a long question, far too long"},{"role":"assistant","content":"d"}]}"#,
            maximumLength: 40)
        #expect(set.trained == ["b<|im_end|>"])
        #expect(set.report.truncatedCount == 1)
        #expect(set.report.longestTokenCount > 40)
    }

    @Test func pairsThatTruncationMakesEqualAreRefused() throws {
        let row = #"{"prompt":"q","chosen":"same good","rejected":"same bad"}"#
        #expect(try ReadDataset(row, maximumLength: 6).problems.first?.hasPrefix("1: the two answers are the same in the 6 tokens") == true)
        let set = try ReadDataset(row, maximumLength: 8)
        #expect(set.pairs == [["q", "same go", "same ba"]])
        #expect(set.report.truncatedCount == 1)
    }
}
