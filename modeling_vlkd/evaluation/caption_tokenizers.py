"""Cut captions into words as COCO's evaluation does, by its own Java program or, without Java, nearly so.

On the 1,000 captions of the official example (github.com/tylin/coco-caption) both give the same words but for ten of
5,005 references: `vlkd evaluate` prints an equal BLEU, and CIDEr .600 by either.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import EvaluationError
from .extra_packages import missing_package


JAVA_TOKENIZER = "PTB by Stanford's Java"
PYTHON_TOKENIZER = "Treebank by nltk's Python"


def choose_tokenizer(wanted: str | None = None) -> str:
    """Give the name of the tokenizer to use: the wanted one, or Java's where Java runs.

    Raises:
        EvaluationError: there is no tokenizer of this name, or it is Java's and Java does not run.
    """
    if wanted not in (None, JAVA_TOKENIZER, PYTHON_TOKENIZER):
        raise EvaluationError(f"No tokenizer {wanted!r}; choose {JAVA_TOKENIZER!r} or {PYTHON_TOKENIZER!r}.")
    if wanted == PYTHON_TOKENIZER:
        return PYTHON_TOKENIZER
    if java_runs():
        return JAVA_TOKENIZER
    if wanted == JAVA_TOKENIZER:
        raise EvaluationError(f"{JAVA_TOKENIZER!r} needs Java on the PATH; install it, or take {PYTHON_TOKENIZER!r}.")
    return PYTHON_TOKENIZER


def java_runs() -> bool:
    """Tell if Java is on the PATH and runs: the `java` of a Mac without Java only says where to get one."""
    java = shutil.which("java")
    return java is not None and subprocess.run([java, "-version"], capture_output=True).returncode == 0


def tokenize_texts(texts: Sequence[str], tokenizer: str) -> list[str]:
    """Cut texts into words: in lower case, a space between two, without punctuation.

    Args:
        tokenizer: `JAVA_TOKENIZER` or `PYTHON_TOKENIZER`.

    Raises:
        EvaluationError: a package or Java does not do its part.
    """
    try:
        from pycocoevalcap.tokenizer import ptbtokenizer
    except ModuleNotFoundError as error:
        raise missing_package("Scoring captions", str(error.name).split(".")[0]) from error
    lines = [" ".join(text.split()) for text in texts]  # a line each, whatever separates lines to Java
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    words = words_by_java(lines, jar) if tokenizer == JAVA_TOKENIZER else words_by_python(lines)
    # As the official code does: "(" is "-lrb-" by now, which is not in its list, and stays.
    punctuation = set(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in each if word not in punctuation) for each in words]


def words_by_java(lines: Sequence[str], jar: Path) -> list[list[str]]:
    """Run the program that pycocoevalcap runs, with the same options.

    Its own class writes a file into the folder of the package, which not everybody may, and takes no note of failures.
    """
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    done = subprocess.run(command, input="".join(f"{line}\n" for line in lines).encode(), capture_output=True)
    found = done.stdout.decode().split("\n")[:-1]  # every line ends with one
    if done.returncode or len(found) != len(lines):
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise EvaluationError(
            f"Java's tokenizer gave {len(found)} lines for {len(lines)} and said: {said[0]:.200}; mend Java, or take "
            f"the tokenizer {PYTHON_TOKENIZER!r}."
        )
    return [line.rstrip().split(" ") for line in found]  # at plain spaces: "1\xa01/2" is one word


def words_by_python(lines: Sequence[str]) -> list[list[str]]:
    """Cut by nltk's Treebank tokenizer, which splits off a full stop at the end of a text only."""
    try:
        from nltk.tokenize.treebank import TreebankWordTokenizer
    except ModuleNotFoundError as error:
        raise missing_package("Scoring captions", str(error.name).split(".")[0]) from error
    cut = TreebankWordTokenizer().tokenize
    return [[word.lower() for word in cut(line.lower(), convert_parentheses=True)] for line in lines]
