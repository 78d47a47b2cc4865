import Testing
import Tuning

@Test func errorsSayWhatTheyAreAbout() {
    #expect("\(TuningError(.invalidArgument, "n_epochs: found 0", parameter: "n_epochs"))" == "n_epochs: found 0")
}
