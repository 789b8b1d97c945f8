import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
}

java {
    sourceCompatibility = JavaVersion.VERSION_11
    targetCompatibility = JavaVersion.VERSION_11
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_11
    }
}

dependencies {
    testImplementation(libs.junit)
}

tasks.test {
    useJUnit()
    systemProperty("kpose.golden", rootDir.resolve("../golden").path)
    // A folder of files of `kpose convert`: ./gradlew :pose:test -Pkpose.models=FOLDER
    providers.gradleProperty("kpose.models").orNull?.let { systemProperty("kpose.models", it) }
}
